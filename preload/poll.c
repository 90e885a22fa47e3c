/* SPDX-License-Identifier: Apache-2.0 */
/*
 * poll with connections among its descriptors. What those have lies in their rings. The kernel is asked for the other descriptors, and of
 * each connection for TCP, for its end or its handshake. Sleeping is in poll_sleep.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "epoll.h"
#include "handshake.h"
#include "io.h"
#include "poll.h"
#include "poll_sleep.h"
#include "real.h"
#include "table.h"
#include "wait.h"

/* How long the end of a TCP connection can go unnoticed while calls do not sleep. */
static const int64_t unasked_ns = 1000000;

enum { ON_STACK = 128 };

/* ---- one connection ---- */

short poll_wanted(const struct pollfd *p)
{
	return (short)((p->events & POLL_NAMES) | POLL_ALWAYS);
}

/* What it has of what is wanted. One that has fallen back becomes the kernel's. */
static short look_at(struct request *r, nfds_t i)
{
	struct sock *s = r->watches[i].sock;

	if (!handshake_lets(s, r->fds[i].fd, READER))
		return handshake_ready(s, r->fds[i].fd, r->fds[i].events) & poll_wanted(&r->fds[i]);
	switch (sock_kind(s)) {
	case SOCK_SMC:
		return stream_ready(&s->stream) & poll_wanted(&r->fds[i]);
	case SOCK_FAILED:
		return (short)(POLL_NAMES & poll_wanted(&r->fds[i]));
	}
	sock_put(s);
	r->watches[i].sock = NULL;
	r->kernel[i].revents = 0; /* what it has said was of the handshake */
	return 0;
}

/* ---- all of them ---- */

/* Of the connections alone. Counts what there is. */
int poll_look(struct request *r)
{
	int ready = 0;

	r->smc = r->others = 0;
	for (nfds_t i = 0; i < r->n; i++) {
		struct pollfd *p = &r->fds[i];

		p->revents = 0;
		if (r->watches[i].sock != NULL)
			p->revents = look_at(r, i);
		if (r->watches[i].sock != NULL && sock_kind(r->watches[i].sock) == SOCK_SMC)
			r->smc++;
		else
			r->others += p->fd >= 0;
		ready += p->revents != 0;
	}
	return ready;
}

nfds_t poll_prepare(struct request *r, bool ends)
{
	for (nfds_t i = 0; i < r->n; i++) {
		struct sock *s = r->watches[i].sock;
		struct pollfd *k = &r->kernel[i];

		*k = (struct pollfd){ .fd = r->fds[i].fd, .events = r->fds[i].events };
		if (s == NULL)
			continue;
		if (sock_kind(s) != SOCK_SMC) {
			k->events = handshake_awaits(s, r->fds[i].events);
			continue;
		}
		k->events = POLLIN | POLLRDHUP;
		if (!ends || s->shared->stream.tcp_ended)
			k->fd = -1;
	}
	return r->n;
}

int poll_merge(struct request *r)
{
	int ready = 0;

	for (nfds_t i = 0; i < r->n; i++) {
		struct sock *s = r->watches[i].sock;

		if (s == NULL)
			r->fds[i].revents = r->kernel[i].revents;
		else if (r->kernel[i].revents != 0 && sock_kind(s) == SOCK_SMC)
			sock_tcp_event(s, r->fds[i].fd);
		ready += r->fds[i].revents != 0;
	}
	return ready;
}

int poll_kernel(struct request *r, nfds_t n, int64_t until)
{
	bool ends = signals_end(r->since, true, 0) && until > now_ns();
	struct timespec left = time_left(ends ? 0 : until);
	int result = real()->ppoll(r->kernel, n, until == FOREVER && !ends ? NULL : &left, r->mask);

	return result == 0 && ends ? (int)io_result(-EINTR) : result;
}

/* What is ready without a sleep. Connections' ends alone are not asked for in each call. */
static int answer(struct request *r, int ready, int64_t now)
{
	static _Thread_local int64_t asked;
	bool ends = now - asked >= unasked_ns;
	int k;

	if (r->others == 0 && !ends && (r->mask == NULL || ready > 0))
		return ready;
	if (ends)
		asked = now;
	k = poll_kernel(r, poll_prepare(r, ends), 0);
	return k < 0 ? k : poll_merge(r);
}

static int wait_any(struct request *r)
{
	for (;;) {
		int ready = poll_look(r), result = 0;
		int64_t now = now_ns();

		if (ready > 0 || now >= r->deadline)
			return answer(r, ready, now);
		if (poll_sleep(r, now, &result))
			return result;
	}
}

/* One connection alone is waited for as a blocking call would. */
static int wait_one(struct request *r)
{
	struct sock *s = r->watches[0].sock;
	short want = r->fds[0].events & (POLLIN | POLLOUT);
	/* Like a wait with a limit, and unlike a read, poll is never resumed after a signal. */
	struct patience patience = { .deadline = r->deadline < FOREVER ? r->deadline : FOREVER - 1, .since = r->since };

	if ((want != POLLIN && want != POLLOUT) || sock_kind(s) != SOCK_SMC || r->mask != NULL || s->registered > 0)
		return 0;
	if (stream_ready(&s->stream) & poll_wanted(&r->fds[0]) || now_ns() >= r->deadline)
		return 0;
	return wait_side(s, r->fds[0].fd, want == POLLIN ? READER : WRITER, &patience);
}

static bool any_moves(const struct pollfd *fds, nfds_t n)
{
	bool any = false;

	for (nfds_t i = 0; i < n; i++) {
		epoll_nested(fds[i].fd);
		any = any || table_moves(fds[i].fd);
	}
	return any;
}

static int wait_request(struct request *r)
{
	struct watch few_watches[ON_STACK], *more_watches = NULL;
	struct pollfd few[2 * ON_STACK], *more = NULL;
	int result;

	r->watches = few_watches;
	r->kernel = few;
	if (r->n > ON_STACK) {
		r->watches = more_watches = malloc(r->n * sizeof(*more_watches));
		r->kernel = more = malloc(2 * r->n * sizeof(*more));
	}
	if (r->watches == NULL || r->kernel == NULL) {
		free(more_watches);
		free(more);
		errno = ENOMEM;
		return -1;
	}
	for (nfds_t i = 0; i < r->n; i++) {
		struct sock *s = table_moves(r->fds[i].fd) ? table_get(r->fds[i].fd, false) : NULL;

		if (s != NULL && sock_kind(s) == SOCK_LISTENER) {
			sock_put(s);
			s = NULL;
		}
		r->watches[i] = (struct watch){ s, false };
	}
	result = r->n == 1 && r->watches[0].sock != NULL ? wait_one(r) : 0;
	if (result == -EINTR)
		result = (int)io_result(result);
	else
		result = wait_any(r);
	for (nfds_t i = 0; i < r->n; i++)
		if (r->watches[i].sock != NULL)
			sock_put(r->watches[i].sock);
	free(more_watches);
	free(more);
	return result;
}

int poll_connections(struct pollfd *fds, nfds_t n, int64_t deadline, const sigset_t *mask)
{
	struct request r = { .fds = fds, .n = n, .deadline = deadline, .mask = mask, .since = signals_now() };

	return wait_request(&r);
}

/* glibc's headers say that poll only writes what it is given, but events are read. */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

/* ---- the calls ---- */

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	return any_moves(fds, n) ? poll_connections(fds, n, deadline_in(timeout), NULL) : real()->poll(fds, n, timeout);
}

int64_t poll_deadline(const struct timespec *timeout)
{
	return timeout == NULL ? FOREVER : now_ns() + timeout->tv_sec * INT64_C(1000000000) + timeout->tv_nsec;
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	return any_moves(fds, n) ? poll_connections(fds, n, poll_deadline(timeout), mask) : real()->ppoll(fds, n, timeout, mask);
}

EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
	if (room / sizeof(*fds) < n)
		abort();
	return poll(fds, n, timeout);
}

EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	if (room / sizeof(*fds) < n)
		abort();
	return ppoll(fds, n, timeout, mask);
}
