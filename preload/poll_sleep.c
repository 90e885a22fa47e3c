/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How poll sleeps: with several connections in the thread's set, on the link groups' pages; with one on its bell, which costs the peer the same
 * and this side less.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "handshake.h"
#include "poll_set.h"
#include "poll_sleep.h"
#include "real.h"
#include "wait.h"

static bool is_smc(const struct watch *w)
{
	return w->sock != NULL && sock_kind(w->sock) == SOCK_SMC;
}

static int64_t until_when(const struct request *r, int64_t now)
{
	int64_t until = now + WAIT_TICK_NS;

	for (nfds_t i = 0; i < r->n; i++)
		if (r->watches[i].sock != NULL && handshake_hurries(r->watches[i].sock))
			until = now + WAIT_HURRY_NS;
	return until < r->deadline ? until : r->deadline;
}

/* ---- before ---- */

/* NULL: no connection is in SMC-D mode yet. */
static const struct watch *first(const struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++)
		if (is_smc(&r->watches[i]))
			return &r->watches[i];
	return NULL;
}

static bool can_go_on(void *request)
{
	struct request *r = request;

	for (nfds_t i = 0; i < r->n; i++)
		if (is_smc(&r->watches[i]) && (stream_ready(&r->watches[i].sock->stream) & poll_wanted(&r->fds[i])))
			return true;
	return false;
}

/* A spin was in vain if something else than a connection has ended the sleep. */
static void learn(struct spinning *sp, bool met, int64_t since)
{
	spin_slept(sp, met ? now_ns() - since : INT64_MAX);
}

/* ---- on bells ---- */

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
			nothing = wait_announce(s, side, ISMFS_SLEEPS_ON_BELL, poll_wanted(p)) && nothing;
	return nothing;
}

static void leave(struct sock *s, const struct pollfd *p)
{
	for (enum side side = READER; side < SIDES; side++)
		if (waits_to(p, side))
			wait_leave(s, side);
}

/* Announce the sleep on every connection; whether there is still nothing. */
static bool go_to_sleep(struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++) {
		struct watch *w = &r->watches[i];

		if (!is_smc(w))
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

static void check_all(struct request *r)
{
	for (nfds_t i = 0; i < r->n; i++)
		if (is_smc(&r->watches[i]))
			sock_check(r->watches[i].sock, r->fds[i].fd);
	link_sweep();
}

static bool sleep_on_bells(struct request *r, int64_t now, int *result)
{
	const struct watch *w = first(r);
	struct spinning *sp = w != NULL ? &w->sock->spinning : NULL;
	bool watched = false, nothing;
	nfds_t n;
	int saved;

	if (sp != NULL && wait_look(w->sock, sp, now, can_go_on, r, &watched))
		return false;
	nothing = go_to_sleep(r);
	n = poll_prepare(r, true);
	for (nfds_t i = 0; i < r->n; i++)
		if (is_smc(&r->watches[i]))
			r->kernel[n++] = (struct pollfd){ .fd = r->watches[i].sock->stream.own_bell, .events = POLLIN };
	*result = poll_kernel(r, n, nothing ? until_when(r, now) : 0);
	saved = errno;
	wake_up(r);
	errno = saved;
	if (*result < 0)
		return true;
	*result = poll_look(r);
	if (watched)
		learn(sp, *result > 0, now);
	*result = poll_merge(r);
	if (*result > 0)
		return true;
	check_all(r);
	return false;
}

/* ---- on pages ---- */

static bool want_all(struct request *r, struct set *set)
{
	for (nfds_t i = 0; i < r->n; i++)
		if (is_smc(&r->watches[i]) && !poll_set_want(set, r->watches[i].sock, r->fds[i].fd, (uint32_t)poll_wanted(&r->fds[i])))
			return false;
	poll_set_settle(set);
	return true;
}

/* Returns what the call in which the thread has slept does. */
static int sleep_in(struct request *r, struct set *set, int64_t until)
{
	enum { SOME = 16 };
	struct epoll_event events[SOME];
	int result, n, saved;

	if (r->others > 0) {
		nfds_t last = poll_prepare(r, false);

		r->kernel[last] = (struct pollfd){ .fd = set->fd, .events = POLLIN };
		result = poll_kernel(r, last + 1, until);
		saved = errno;
		n = result > 0 && r->kernel[last].revents != 0 ? real()->epoll_wait(set->fd, events, SOME, 0) : 0;
	} else {
		n = result = set_ask_kernel(set->fd, events, SOME, until, r->mask, r->since);
		saved = errno;
	}
	(void)set_sort_out(set, events, n);
	errno = saved;
	return result;
}

static bool sleep_in_set(struct request *r, struct set *set, int64_t now, int *result)
{
	struct epoll_event any;
	struct rest rest;
	bool watched, has_others = r->others > 0;
	int saved;

	if (!r->visited)
		set_visit(set);
	r->visited = true;
	set_look(set);
	if (set_harvest(set, &any, 1) > 0 || set_spin(set, now, &watched))
		return false;
	set_tick(set);
	*result = sleep_in(r, set, set_lie_down(set, &rest, until_when(r, now)));
	saved = errno;
	set_get_up(set, &rest);
	errno = saved;
	if (*result < 0)
		return true;
	*result = poll_look(r);
	if (watched)
		learn(&set->spinning, *result > 0, now);
	if (has_others)
		*result = poll_merge(r);
	return *result > 0;
}

bool poll_sleep(struct request *r, int64_t now, int *result)
{
	struct set *set = r->smc > 1 ? poll_set_take() : NULL;
	bool over;

	if (set == NULL)
		return sleep_on_bells(r, now, result);
	over = want_all(r, set) ? sleep_in_set(r, set, now, result) : sleep_on_bells(r, now, result);
	poll_set_give(set);
	return over;
}
