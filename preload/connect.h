/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_CONNECT_H
#define PRELOAD_CONNECT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

union address;

/* TCP proper: a mark on an MPTCP socket would land on none of its subflows. */
bool is_tcp(int fd);

/* Whether calls on it may wait. */
bool blocks(int fd);

/* Settle what was never marked; only where there is a device it is described and counted. */
void stay_plain(int fd, bool client, uint32_t reason, const union address *peer);

/*
 * A socket of this process may have an option under which it stays on TCP (control.c): Fast Open, whose SYN would wait for the first bytes, so
 * that what the server says would come too late; a place to peek at, which the messages of a handshake would be peeked at by, too.
 */
extern atomic_bool tcp_only_asked;
bool is_tcp_only(int fd);

#endif
