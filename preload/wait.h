/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for one connection. A side announces how it sleeps in one byte of the peer's header, so of several that wait for the same side
 * the last one to announce is told; when it leaves it tells the others, who look again (wait_enter, wait_leave). An epoll set does
 * not overrule a thread that waits.
 */
#ifndef PRELOAD_WAIT_H
#define PRELOAD_WAIT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "../clients/c/stream.h"
#include "signals.h"

struct sock;
struct spinning;

/* How a call waits. */
struct patience {
	int64_t deadline;     /* 0: not asked for yet, since it has not had to wait */
	struct signals since; /* its beginning; of those that resume it, its first byte */
	bool begun;           /* it has moved bytes: a handler ends it, also one with SA_RESTART */
};

/* That of a call that begins. */
static inline struct patience patience_new(void)
{
	return (struct patience){ .since = signals_now() };
}

/* Wait until a side has something to do: 0, -EAGAIN at the deadline, -EINTR. The caller has just looked. */
int wait_side(struct sock *s, int fd, enum side side, const struct patience *p);

/*
 * Before a sleep for connections of which s is one, if the mount allows it: watch whether what is waited for is there, or give the CPU away meanwhile
 * if the peer has the same one. Returns whether it is. watched: spin_slept is to hear how the sleep goes that follows.
 */
bool wait_look(struct sock *s, struct spinning *sp, int64_t now, bool (*there)(void *what), void *what, bool *watched);

/* Around sleeps on a connection. */
void wait_enter(struct sock *s, enum side side);
void wait_leave(struct sock *s, enum side side);

/* Publish what the peer waits for, announce, and look again: whether there is nothing of what is wanted (POLLIN, …). */
bool wait_announce(struct sock *s, enum side side, uint8_t how, short wanted);

/*
 * The two halves of a sleep on the own DMB's bell, with an announcement and a second look in between: forget what rang before, and wait for
 * the bell or the end of TCP. 0 or an errno.
 */
void wait_empty_bell(struct sock *s);
int wait_on_bell(struct sock *s, int fd, const struct timespec *left);

/* How long a sleep lasts before the peer's life is looked after. In the tests' own builds a wake-up that is lost has to show. */
#ifdef SANITIZED
#define WAIT_TICK_NS INT64_C(600000000000)
#else
#define WAIT_TICK_NS INT64_C(1000000000)
#endif
/* How long one lasts while a handshake goes on. */
#define WAIT_HURRY_NS INT64_C(100000000)

#endif
