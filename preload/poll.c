/* SPDX-License-Identifier: Apache-2.0 */
/*
 * poll with connections among its descriptors. The kernel polls the rest, and of each connection TCP, for its end or its
 * handshake, and the bell.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "epoll.h"
#include "handshake.h"
#include "io.h"
#include "poll.h"
#include "real.h"
#include "table.h"
#include "wait.h"

/* How long a sleep lasts while a handshake goes on. */
static const int64_t hurry_ns = INT64_C(100000000);

enum { ON_STACK = 32, ALWAYS = POLLERR | POLLHUP, NAMES = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP | ALWAYS };

struct request {
	struct pollfd *fds;
	nfds_t n;
	int64_t deadline;
	const sigset_t *mask;
	struct watch {
		struct sock *sock; /* NULL: the kernel's */
		bool entered;
	} *watches;            /* by place in fds */
	struct pollfd *kernel; /* first the same descriptors, then bells */
};

/* ---- one connection ---- */

static short wanted(const struct pollfd *p)
{
	return (short)((p->events & NAMES) | ALWAYS);
}

/* What it has of what is wanted. One that has fallen back becomes the kernel's. */
static short look_at(struct request *r, nfds_t i)
{
	struct sock *s = r->watches[i].sock;

	if (!handshake_lets(s, r->fds[i].fd, READER))
		return handshake_ready(s, r->fds[i].fd, r->fds[i].events) & wanted(&r->fds[i]);
	switch (sock_kind(s)) {
	case SOCK_SMC:
		return stream_ready(&s->stream) & wanted(&r->fds[i]);
	case SOCK_FAILED:
		return (short)(NAMES & wanted(&r->fds[i]));
	}
	sock_put(s);
	r->watches[i].sock = NULL;
	r->kernel[i].revents = 0; /* what it has said was of the handshake */
	return 0;
}

static bool waits_to(const struct pollfd *p, enum side side)
{
	short out = POLLOUT | POLLWRNORM;

	return side == WRITER ? (p->events & out) != 0 : true; /* a reader hears of ends, too */
}

static void enter(struct sock *s, const struct pollfd *p)
{
	for (enum side side = READER; side < SIDES; side++)
		if (waits_to(p, side))
			wait_enter(s, side);
	wait_empty_bell(s);
}

static bool announce_all(struct sock *s, const struct pollfd *p)
{
	bool nothing = true;

	for (enum side side = READER; side < SIDES; side++)
		if (waits_to(p, side))
			nothing = wait_announce(s, side, ISMFS_SLEEPS_ON_BELL, wanted(p)) && nothing;
	return nothing;
}

static void leave(struct sock *s, const struct pollfd *p)
{
	for (enum side side = READER; side < SIDES; side++)
		if (waits_to(p, side))
			wait_leave(s, side);
}

/* ---- all of them ---- */

static int look(struct request *r)
{
	int ready = 0;

	for (nfds_t i = 0; i < r->n; i++) {
		r->fds[i].revents = 0;
		if (r->watches[i].sock == NULL)
			continue;
		r->fds[i].revents = look_at(r, i);
		ready += r->fds[i].revents != 0;
	}
	return ready;
}

/* Fills in what the kernel polls; returns how many. */
static nfds_t prepare(struct request *r, bool bells)
{
	nfds_t n = r->n;

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
		if (s->shared->stream.tcp_ended)
			k->fd = -1;
		if (bells)
			r->kernel[n++] = (struct pollfd){ .fd = s->stream.own_bell, .events = POLLIN };
	}
	return n;
}

/* The kernel's own descriptors among those that it has found ready. */
static int merge(struct request *r)
{
	int ready = 0;

	for (nfds_t i = 0; i < r->n; i++) {
		if (r->watches[i].sock == NULL)
			r->fds[i].revents = r->kernel[i].revents;
		else if (r->kernel[i].revents != 0 && sock_kind(r->watches[i].sock) == SOCK_SMC)
			sock_tcp_event(r->watches[i].sock, r->fds[i].fd);
		ready += r->fds[i].revents != 0;
	}
	return ready;
}

static int ask_kernel(struct request *r, nfds_t n, int64_t until)
{
	struct timespec left = time_left(until);

	return real()->ppoll(r->kernel, n, until == FOREVER ? NULL : &left, r->mask);
}

/* Announce the sleep on every connection; whether there is still nothing. */
static bool go_to_sleep(struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++) {
		struct watch *w = &r->watches[i];

		if (w->sock == NULL || sock_kind(w->sock) != SOCK_SMC)
			continue;
		w->entered = true;
		enter(w->sock, &r->fds[i]);
		if (!announce_all(w->sock, &r->fds[i]))
			return false;
	}
	return true;
}

static void wake_up(struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++) {
		if (r->watches[i].entered)
			leave(r->watches[i].sock, &r->fds[i]);
		r->watches[i].entered = false;
	}
}

static bool is_settling(const struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++)
		if (r->watches[i].sock != NULL && handshake_hurries(r->watches[i].sock))
			return true;
	return false;
}

/* What ppoll returns; the connections have to be looked at again. */
static int sleep_once(struct request *r)
{
	bool nothing = go_to_sleep(r);
	int64_t until = now_ns() + (is_settling(r) ? hurry_ns : WAIT_TICK_NS);
	int k, saved;

	if (until > r->deadline)
		until = r->deadline;
	k = ask_kernel(r, prepare(r, true), nothing ? until : 0);
	saved = errno;

	wake_up(r);
	errno = saved;
	return k;
}

static void check_all(struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++)
		if (r->watches[i].sock != NULL && sock_kind(r->watches[i].sock) == SOCK_SMC)
			sock_check(r->watches[i].sock, r->fds[i].fd);
	link_sweep();
}

static int wait_any(struct request *r)
{
	for (;;) {
		int ready = look(r), k;

		if (ready > 0 || now_ns() >= r->deadline) {
			k = ask_kernel(r, prepare(r, false), 0);
			return k < 0 ? k : merge(r);
		}
		k = sleep_once(r);
		if (k < 0)
			return k;
		ready = look(r);
		if (k > 0)
			ready = merge(r);
		if (ready > 0)
			return ready;
		check_all(r);
	}
}

/* One connection alone is waited for as a blocking call would. */
static int wait_one(struct request *r)
{
	struct sock *s = r->watches[0].sock;
	short want = r->fds[0].events & (POLLIN | POLLOUT);

	if ((want != POLLIN && want != POLLOUT) || sock_kind(s) != SOCK_SMC || r->mask != NULL || s->items != NULL)
		return 0;
	if (stream_ready(&s->stream) & wanted(&r->fds[0]) || now_ns() >= r->deadline)
		return 0;
	return wait_side(s, r->fds[0].fd, want == POLLIN ? READER : WRITER, r->deadline);
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
	struct request r = { .fds = fds, .n = n, .deadline = deadline, .mask = mask };

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
