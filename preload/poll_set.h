/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a call of poll with several connections sleeps in: an epoll set of the thread's own, in which the connections stay from one call to
 * the next. So what has not changed is announced to its peer already, and the peer wakes the thread once for all of them, by the page. Which
 * connections are ready poll sees from their rings; the set only has to wake it.
 */
#ifndef PRELOAD_POLL_SET_H
#define PRELOAD_POLL_SET_H

#include "epoll_set.h"

/* The calling thread's, made at its first call; it is the caller's until poll_set_give. NULL: it cannot be had. */
struct set *poll_set_take(void);
void poll_set_give(struct set *set);

/*
 * What this call asks for: poll_set_want for each connection, then poll_set_settle, which lays aside those that it does not ask for. Returns
 * false if one cannot be put into the set.
 */
bool poll_set_want(struct set *set, struct sock *s, int fd, uint32_t events);
void poll_set_settle(struct set *set);

/* In a child of fork, after the sockets' items. */
void poll_set_forked(void);

#endif
