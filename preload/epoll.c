/* SPDX-License-Identifier: Apache-2.0 */
/* epoll_wait and its kin: what the kernel says, waiting. Which connections are ready is in epoll_look.c. */
#define _GNU_SOURCE
#include <errno.h>

#include "epoll_set.h"
#include "handshake.h"
#include "io.h"
#include "poll.h"
#include "real.h"
#include "table.h"
#include "wait.h"

/* ---- waiting ---- */

struct request {
	int epfd;
	struct epoll_event *events;
	int most;
	int64_t deadline;
	const sigset_t *mask;
	struct signals since;
};

static int ask_kernel(const struct request *r, int have, int64_t until)
{
	return set_ask_kernel(r->epfd, r->events + have, r->most - have, until, r->mask, r->since);
}

/* Sleep in the kernel unless there is something after all. Returns what epoll_wait does. */
static int sleep_in(struct set *set, const struct request *r, int64_t until)
{
	struct rest rest;
	int k, saved;

	if (until <= now_ns())
		return ask_kernel(r, 0, 0);
	k = ask_kernel(r, 0, set_lie_down(set, &rest, until));
	saved = errno;
	set_get_up(set, &rest);
	errno = saved;
	return k;
}

/*
 * Sleep until there is something, or for a while. Returns what epoll_wait does, 0 also for nothing yet. spun: news were met without a sleep;
 * if they were nothing to the program, the next call asks the kernel.
 */
static int sleep_awhile(struct set *set, const struct request *r, int64_t now, bool *spun)
{
	int64_t until = now + set_tick_ns(set);
	bool watched = false;
	int n, own = 0;

	if (until > r->deadline)
		until = r->deadline;
	*spun = until > now && !*spun && set_spin(set, now, &watched);
	if (*spun)
		return 0;
	n = sleep_in(set, r, until);
	if (n < 0)
		return n;
	n = set_sort_out(set, r->events, n);
	if (n < r->most)
		own = set_harvest(set, r->events + n, r->most - n);
	set->asked = now_ns();
	if (watched)
		spin_slept(&set->spinning, own > 0 ? set->asked - now : INT64_MAX);
	return n + own;
}

static int wait_awhile(struct set *set, const struct request *r)
{
	for (bool spun = false;;) {
		int64_t now;
		int n, k;

		set_look(set);
		n = set_harvest(set, r->events, r->most < SET_MOST ? r->most : SET_MOST);
		now = now_ns();
		if (n > 0) {
			if (n == r->most || now - set->asked < SET_UNASKED_NS)
				return n;
			set->asked = now;
			k = ask_kernel(r, n, 0);
			return k > 0 ? n + set_sort_out(set, r->events + n, k) : n;
		}
		set_tick(set);
		n = sleep_awhile(set, r, now, &spun);
		if (n != 0 || now >= r->deadline)
			return n;
	}
}

/* As the kernel does: who leaves something behind wakes the next one, and who looks from outside sees it. */
static int wait_in(struct set *set, const struct request *r)
{
	int n, saved;

	set_hide(set);
	set_visit(set);
	n = wait_awhile(set, r);
	saved = errno;
	set_show(set);
	errno = saved;
	return n;
}

/* Another thread may have made the set since the call began; what the kernel says of its connections it says once. */
static int sort_out_made(struct set **set, const struct request *r, int n)
{
	if (*set == NULL)
		*set = set_get(r->epfd);
	return set_sort_out(*set, r->events, n);
}

/*
 * A wait in a set without connections is the kernel's. The first one that another thread adds meanwhile kicks it: a thread, and if several
 * wait the others do not hear of it. So they come out for a look now and then.
 */
enum { OUTSIDE_MS = 1000 };

static int wait_events(const struct request *r)
{
	for (;;) {
		struct set *set = set_get(r->epfd);
		bool has = set != NULL && (atomic_load(&set->count) > 0 || link_busy()), ends = has;
		int n;

		if (has && r->most > 0) {
			n = wait_in(set, r);
		} else {
			int64_t until = now_ns() + OUTSIDE_MS * INT64_C(1000000);

			ends = r->deadline <= until;
			n = ask_kernel(r, 0, ends ? r->deadline : until);
			if (n > 0) {
				n = sort_out_made(&set, r, n);
				ends = false;
			}
		}
		if (set != NULL)
			set_put(set);
		if (n != 0 || ends)
			return n;
	}
}

/* The kernel's answer to a call that began when there were no sets with connections: meanwhile there can be. */
static int sort_out_late(const struct request *r, int n)
{
	struct set *set = NULL;
	int kept;

	if (n == 0 && r->deadline > 0 && now_ns() < r->deadline)
		return wait_events(r);
	if (n <= 0 || !set_any())
		return n;
	kept = sort_out_made(&set, r, n);
	if (set != NULL)
		set_put(set);
	return kept > 0 ? kept : wait_events(r);
}

static bool is_time(const struct timespec *t)
{
	return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < 1000000000;
}

/* So long a call may wait at first. */
static int first_ms(int timeout)
{
	return timeout >= 0 && timeout <= OUTSIDE_MS ? timeout : OUTSIDE_MS;
}

EXPORT int epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
	struct request r = { epfd, events, most, deadline_in(timeout), NULL, signals_now() };

	return set_any() ? wait_events(&r) : sort_out_late(&r, real()->epoll_wait(epfd, events, most, first_ms(timeout)));
}

EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
	struct request r = { epfd, events, most, deadline_in(timeout), mask, signals_now() };

	return set_any() ? wait_events(&r) : sort_out_late(&r, real()->epoll_pwait(epfd, events, most, first_ms(timeout), mask));
}

EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask)
{
	static const struct timespec longest = { OUTSIDE_MS / 1000, 0 };
	struct request r = { epfd, events, most, poll_deadline(timeout), mask, signals_now() };
	bool is_short = timeout != NULL && timeout->tv_sec < longest.tv_sec;

	if (timeout != NULL && !is_time(timeout))
		return (int)io_result(-EINVAL);
	if (set_any())
		return wait_events(&r);
	return sort_out_late(&r, real()->epoll_pwait2(epfd, events, most, is_short ? timeout : &longest, mask));
}
