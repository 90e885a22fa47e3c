/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections on TCP of which nothing else is to be known: neither more descriptors, nor processes, nor an end to be told. Programs that have
 * a connection for each request pay for all that is kept of one, so of these it is a note in the table and a line in conns that says nothing
 * but the descriptor's number, the peer and the reason. The device finds the socket by the number when conns is read; a line whose
 * descriptor is closed, or something else by now, is not shown. So close leaves it as it is, and the next connection of that number, often to
 * the same peer, finds it written.
 */
#ifndef PRELOAD_PLAIN_H
#define PRELOAD_PLAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "device.h"

/* A connection that has just come about is on TCP: counted and listed. false: not so, its line needs a sock. */
bool plain_list(int fd, struct device *d, bool client, uint32_t reason, const union address *peer);

/* There will be another descriptor or process that has it: a sock in place of the note. */
void plain_keep(int fd);
void plain_keep_all(void);

/* The number is something else now. */
void plain_forget(int fd);

/* In a child of fork: the lines are its parent's. */
void plain_forked(void);

#endif
