/* SPDX-License-Identifier: Apache-2.0 */
/* A call of poll, and its sleep. */
#ifndef PRELOAD_POLL_SLEEP_H
#define PRELOAD_POLL_SLEEP_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "signals.h"

struct sock;

enum {
	POLL_ALWAYS = POLLERR | POLLHUP,
	POLL_NAMES = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP | POLL_ALWAYS,
};

struct request {
	struct pollfd *fds;
	nfds_t n;
	int64_t deadline;
	const sigset_t *mask;
	struct signals since;
	struct watch {
		struct sock *sock; /* NULL: the kernel's */
		bool entered;
	} *watches;            /* by place in fds */
	struct pollfd *kernel; /* first the same descriptors, then what is slept on: twice as many have room */
	nfds_t smc, others;    /* connections, and what only the kernel can tell of, at the last look */
	bool visited;          /* this call has been counted as a visit to the pages */
};

/* What of a connection is asked for. */
short poll_wanted(const struct pollfd *p);

/* Fills in revents of the connections, and counts. Returns how many are ready. */
int poll_look(struct request *r);

/* What the kernel is asked for: of connections, with ends, TCP. Returns how many. Then the asking; and revents of what is the kernel's. */
nfds_t poll_prepare(struct request *r, bool ends);
int poll_kernel(struct request *r, nfds_t n, int64_t until);
int poll_merge(struct request *r);

/* Waits for something after a look that has found nothing. Returns whether the call is over, with its result; else look again. */
bool poll_sleep(struct request *r, int64_t now, int *result);

#endif
