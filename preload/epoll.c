/* SPDX-License-Identifier: Apache-2.0 */
/* epoll_wait and its kin: what the kernel says, waiting. Which connections are ready is in epoll_look.c. */
#define _GNU_SOURCE
#include <errno.h>

#include "epoll_set.h"
#include "handshake.h"
#include "poll.h"
#include "real.h"
#include "table.h"
#include "wait.h"

/* How long a sleep lasts while a handshake goes on; how long the kernel is not asked while connections are ready. */
static const int64_t hurry_ns = INT64_C(100000000), unasked_ns = 50000;

/* ---- what the kernel's set has to say ---- */


static void take_event(struct set *set, enum mark mark, int fd)
{
	struct sock *s;

	switch (mark) {
	case MARK_KICK:
		if (atomic_load(&set->nested))
			hidden_drain(set->kick);
		atomic_store(&set->kicked, false);
		break;
	case MARK_PAGE:
		hidden_drain(fd);
		break;
	case MARK_TCP:
	case MARK_BELL:
		s = table_get(fd, false);
		if (s == NULL)
			break;
		if (mark == MARK_BELL && sock_kind(s) == SOCK_SMC)
			hidden_drain(s->stream.own_bell);
		else if (handshake_drive(s, fd) && sock_kind(s) == SOCK_SMC)
			sock_check(s, fd);
		epoll_news(s);
		sock_put(s);
		break;
	case MARK_NONE:
		break;
	}
}

/* Keeps the program's events, takes those of the library's own. */
static int sort_out(struct set *set, struct epoll_event *events, int n)
{
	int kept = 0, fd;

	for (int i = 0; i < n; i++) {
		enum mark mark = mark_of(events[i].data.u64, &fd);

		if (mark == MARK_NONE)
			events[kept++] = events[i];
		else if (set != NULL)
			take_event(set, mark, fd);
	}
	return kept;
}

static int64_t tick_of(const struct set *set)
{
	return atomic_load(&set->settling) ? hurry_ns : WAIT_TICK_NS;
}

/* Under the set's lock. */
static bool is_settling(const struct item *it)
{
	if (!handshake_hurries(it->sock))
		return false;
	atomic_store(&it->set->settling, true);
	return true;
}

/* Once a second: handshakes that take too long, peers that have gone, what link groups keep. */
static void tick(struct set *set)
{
	int64_t now = now_ns();

	if (now - set->ticked < tick_of(set))
		return;
	set->ticked = now;
	atomic_store(&set->settling, false);
	link_sweep();
	lock_take(&set->lock);
	for (struct item *it = set->items; it != NULL; it = it->after)
		if (is_settling(it) || (sock_kind(it->sock) == SOCK_SMC && atomic_load(procs_word(it->sock->stream.procs)) != it->sock->heard))
			it->due = true;
	lock_release(&set->lock);
	for (bool any = true; any;) {
		struct sock *s = NULL;
		int fd = -1;

		any = false;
		lock_take(&set->lock);
		for (struct item *it = set->items; it != NULL && !any; it = it->after)
			if (it->due) {
				it->due = false;
				any = true;
				s = it->sock;
				fd = it->fd;
				atomic_fetch_add(&s->refs, 1);
			}
		lock_release(&set->lock);
		if (s == NULL)
			break;
		if (handshake_drive(s, fd) && sock_kind(s) == SOCK_SMC)
			sock_check(s, fd);
		epoll_news(s);
		sock_put(s);
	}
}

/* ---- waiting ---- */

struct request {
	int epfd;
	struct epoll_event *events;
	int most;
	int64_t deadline;
	const sigset_t *mask;
};

static int ask_kernel(const struct request *r, int have, int64_t until)
{
	struct timespec left = time_left(until);

	return real()->epoll_pwait2(r->epfd, r->events + have, r->most - have, until == FOREVER ? NULL : &left, r->mask);
}

/* The pages that a thread has announced a sleep on. What comes to the set meanwhile kicks it. */
struct rest {
	struct own_page *pages[MOST_PAGES];
	bool deputy[MOST_PAGES];
	unsigned int n;
};

/* Returns until when to sleep. */
static int64_t announce_sleep(struct set *set, struct rest *rest, int64_t until)
{
	bool any = false;

	for (rest->n = 0; rest->n < MOST_PAGES; rest->n++) {
		bool *deputy = &rest->deputy[rest->n];

		rest->pages[rest->n] = set_sleep(set, rest->n, deputy);
		if (rest->pages[rest->n] == NULL)
			break;
		any = any || *deputy;
	}
	if (any && until > now_ns() + PAGE_DEPUTY_NS)
		return now_ns() + PAGE_DEPUTY_NS;
	return until;
}

static void take_back_sleep(struct set *set, struct rest *rest)
{
	set_at_hand = set;
	while (rest->n-- > 0) {
		page_awake(rest->pages[rest->n], rest->deputy[rest->n]);
		page_look(rest->pages[rest->n]);
		page_put(rest->pages[rest->n]);
	}
	set_at_hand = NULL;
}

/* Sleep in the kernel unless there is something after all. Returns what epoll_wait does. */
static int sleep_in(struct set *set, const struct request *r, int64_t until)
{
	struct rest rest;
	int k, saved;

	if (until <= now_ns())
		return ask_kernel(r, 0, 0);
	atomic_store(&set->kicked, false);
	atomic_fetch_add(&set->sleeping, 1);
	until = announce_sleep(set, &rest, until);
	set_look(set);
	k = ask_kernel(r, 0, set_has_candidates(set) ? 0 : until);
	saved = errno;
	atomic_fetch_sub(&set->sleeping, 1);
	atomic_store(&set->kicked, false);
	take_back_sleep(set, &rest);
	errno = saved;
	return k;
}

static int wait_awhile(struct set *set, const struct request *r)
{
	for (;;) {
		int64_t now, until;
		int n, k;

		set_look(set);
		n = set_harvest(set, r->events, r->most);
		now = now_ns();
		if (n > 0) {
			if (n == r->most || now - set->asked < unasked_ns)
				return n;
			set->asked = now;
			k = ask_kernel(r, n, 0);
			return k > 0 ? n + sort_out(set, r->events + n, k) : n;
		}
		tick(set);
		until = now + tick_of(set);
		if (until > r->deadline)
			until = r->deadline;
		k = sleep_in(set, r, until);
		if (k < 0)
			return k;
		now = now_ns();
		set->asked = now;
		n = sort_out(set, r->events, k);
		if (n < r->most)
			n += set_harvest(set, r->events + n, r->most - n);
		if (n > 0 || now >= r->deadline)
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

/* Without connections it is the kernel's; the first one that another thread adds meanwhile kicks it. */
static int wait_events(const struct request *r)
{
	for (;;) {
		struct set *set = set_get(r->epfd);
		bool has = set != NULL && (atomic_load(&set->count) > 0 || link_busy());
		int64_t until = r->deadline;
		int n;

		if (has && r->most > 0) {
			n = wait_in(set, r);
		} else {
			n = ask_kernel(r, 0, until);
			if (n > 0)
				n = sort_out(set, r->events, n);
			else if (n == 0)
				until = 0; /* the time is up */
		}
		if (set != NULL)
			set_put(set);
		if (n != 0 || has || until == 0)
			return n;
	}
}

/* The kernel's answer to a call that began when there were no sets with connections: meanwhile there can be. */
static int sort_out_late(const struct request *r, int n)
{
	int kept;

	if (n <= 0 || !set_any())
		return n;
	kept = sort_out(NULL, r->events, n);
	return kept > 0 ? kept : wait_events(r);
}

EXPORT int epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
	struct request r = { epfd, events, most, deadline_in(timeout), NULL };

	return set_any() ? wait_events(&r) : sort_out_late(&r, real()->epoll_wait(epfd, events, most, timeout));
}

EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
	struct request r = { epfd, events, most, deadline_in(timeout), mask };

	return set_any() ? wait_events(&r) : sort_out_late(&r, real()->epoll_pwait(epfd, events, most, timeout, mask));
}

EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask)
{
	struct request r = { epfd, events, most, poll_deadline(timeout), mask };

	return set_any() ? wait_events(&r) : sort_out_late(&r, real()->epoll_pwait2(epfd, events, most, timeout, mask));
}
