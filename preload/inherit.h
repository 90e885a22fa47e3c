/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that a new program inherits. It knows nothing of what its descriptors were: one whose bytes do not go through TCP must not look
 * like TCP there. Where this library sees the exec it replaces them before (exec.c). A child that the C library starts by itself
 * (posix_spawn, popen, system) does it as it begins, by a mark that its parent has made.
 */
#ifndef PRELOAD_INHERIT_H
#define PRELOAD_INHERIT_H

#include <stdbool.h>

struct sock;

/* Whether a new program has the descriptor. */
bool inherit_stays(int fd);

/* Calls f with every descriptor that is open, but for some of those with very high numbers. */
void inherit_each(void (*f)(int fd, void *context), void *context);

/* A socket that is shut down in both directions: reads give the end, writes EPIPE. -1: no descriptors are left. */
int inherit_dead(void);

/* Before a child is started: a connection that nobody has answered becomes TCP, one in SMC-D mode or on its way there is marked. */
void inherit_prepare(struct sock *s, int fd);

/* It is settled, and not in SMC-D mode. The handshake's lock is held, or the connection is new. */
void inherit_unmark(struct sock *s, int fd);

/* As the program begins: what is marked is replaced. */
void inherit_look(void);

#endif
