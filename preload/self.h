/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of a process to itself: a thread that serves may be the one whose client waits for the answer, and one that waits for a
 * client may have to carry on that client's handshake. Which client is whose nobody knows, so all of this process's count.
 */
#ifndef PRELOAD_SELF_H
#define PRELOAD_SELF_H

#include <stdbool.h>

struct sock;

/* A client waits for its server's answer, and does so no more. */
void self_waits(struct sock *s);
void self_waits_no_more(struct sock *s);

/* What a child of fork has of its parent's does not count: the parent carries it on. */
void self_forked(void);

/* Whether any does. */
bool self_has_clients(void);

/* Carries them on. */
void self_drive(void);

/* Whether this process listens at the port to which a client of its own is connected. */
bool self_serves(int client);

#endif
