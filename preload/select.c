/* SPDX-License-Identifier: Apache-2.0 */
/* select and pselect, by poll. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../clients/c/internal.h"
#include "epoll.h"
#include "poll.h"
#include "real.h"
#include "table.h"

struct sets {
	int n;
	fd_set *in, *out, *odd;
};

static bool in_set(const fd_set *set, int fd)
{
	return set != NULL && (((const unsigned long *)(const void *)set)[fd / (8 * (int)sizeof(long))] >> fd % (8 * (int)sizeof(long)) & 1);
}

static void put_in_set(fd_set *set, int fd, bool in)
{
	unsigned long *word, bit = 1UL << fd % (8 * (int)sizeof(long));

	if (set == NULL)
		return;
	word = &((unsigned long *)(void *)set)[fd / (8 * (int)sizeof(long))];
	*word = in ? *word | bit : *word & ~bit;
}

static bool any_in_table(const struct sets *s)
{
	bool any = false;

	for (int fd = 0; fd < s->n; fd++) {
		if (!in_set(s->in, fd) && !in_set(s->out, fd) && !in_set(s->odd, fd))
			continue;
		epoll_nested(fd);
		any = any || table_moves(fd);
	}
	return any;
}

static short events_of(const struct sets *s, int fd)
{
	return (short)((in_set(s->in, fd) ? POLLIN : 0) | (in_set(s->out, fd) ? POLLOUT : 0) | (in_set(s->odd, fd) ? POLLPRI : 0));
}

static int answer(const struct sets *s, const struct pollfd *fds, nfds_t n)
{
	int ready = 0;

	for (nfds_t i = 0; i < n; i++)
		if (fds[i].revents & POLLNVAL) {
			errno = EBADF;
			return -1;
		}
	for (nfds_t i = 0; i < n; i++) {
		short asked = fds[i].events, has = fds[i].revents;
		bool in = (asked & POLLIN) && (has & (POLLIN | POLLHUP | POLLERR)), out = (asked & POLLOUT) && (has & (POLLOUT | POLLERR));
		bool odd = (asked & POLLPRI) && (has & POLLPRI);

		put_in_set(s->in, fds[i].fd, in);
		put_in_set(s->out, fds[i].fd, out);
		put_in_set(s->odd, fds[i].fd, odd);
		ready += in + out + odd;
	}
	return ready;
}

/* Without malloc for as many as most have: in a signal's handler there may be none. */
enum { ON_STACK = 128 };

/* What is asked for; few is used as far as it goes. NULL: no memory. */
static struct pollfd *collect(const struct sets *s, struct pollfd few[ON_STACK], nfds_t *n)
{
	struct pollfd *fds = few;

	*n = 0;
	for (int fd = 0; fd < s->n; fd++) {
		short events = events_of(s, fd);

		if (events == 0)
			continue;
		if (*n == ON_STACK && fds == few) {
			fds = malloc((size_t)s->n * sizeof(*fds));
			if (fds == NULL)
				return NULL;
			memcpy(fds, few, ON_STACK * sizeof(*fds));
		}
		fds[(*n)++] = (struct pollfd){ .fd = fd, .events = events };
	}
	return fds;
}

static int select_by_poll(const struct sets *s, int64_t deadline, const sigset_t *mask)
{
	struct pollfd few[ON_STACK], *fds;
	nfds_t n;
	int result;

	fds = collect(s, few, &n);
	if (fds == NULL) {
		errno = ENOMEM;
		return -1;
	}
	result = poll_connections(fds, n, deadline, mask);
	if (result >= 0)
		result = answer(s, fds, n);
	if (fds != few)
		free(fds);
	return result;
}

/* Linux's select says how much time is left. */
EXPORT int select(int n, fd_set *in, fd_set *out, fd_set *odd, struct timeval *timeout)
{
	struct sets s = { n, in, out, odd };
	int64_t deadline = FOREVER, left;
	int result;

	if (!any_in_table(&s))
		return real()->select(n, in, out, odd, timeout);
	if (timeout != NULL)
		deadline = now_ns() + timeout->tv_sec * INT64_C(1000000000) + timeout->tv_usec * INT64_C(1000);
	result = select_by_poll(&s, deadline, NULL);
	if (timeout != NULL) {
		left = deadline - now_ns();
		left = left > 0 ? left : 0;
		timeout->tv_sec = left / INT64_C(1000000000);
		timeout->tv_usec = left % INT64_C(1000000000) / 1000;
	}
	return result;
}

EXPORT int pselect(int n, fd_set *in, fd_set *out, fd_set *odd, const struct timespec *timeout, const sigset_t *mask)
{
	struct sets s = { n, in, out, odd };

	if (!any_in_table(&s))
		return real()->pselect(n, in, out, odd, timeout, mask);
	return select_by_poll(&s, poll_deadline(timeout), mask);
}
