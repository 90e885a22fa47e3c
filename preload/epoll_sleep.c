/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's sleep in a set, for epoll_wait and for poll: the announcement on the pages, and what the kernel says when it is over. */
#define _GNU_SOURCE
#include <errno.h>

#include "epoll_set.h"
#include "handshake.h"
#include "io.h"
#include "real.h"
#include "table.h"
#include "wait.h"

/* ---- what the kernel's set has to say ---- */

/* What a shared set let go of is in the kernel's still, which wakes one thread alone: that tells those whom it concerns. */
static void hear_for_others(struct set *set, int bell)
{
	struct own_page *p = page_of_bell(bell);

	if (p == NULL)
		return;
	if (!p->inherited)
		(void)real()->epoll_ctl(set->fd, EPOLL_CTL_DEL, bell, NULL);
	hidden_drain(bell);
	page_heard(p);
	page_put(p);
}

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
		if (!set_drain(set, fd))
			hear_for_others(set, fd);
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
		if (sock_kind(s) == SOCK_PLAIN)
			epoll_settled(s); /* by another process */
		else
			epoll_news(s);
		sock_put(s);
		break;
	case MARK_NONE:
		break;
	}
}

int set_sort_out(struct set *set, struct epoll_event *events, int n)
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

int64_t set_tick_ns(const struct set *set)
{
	return atomic_load(&set->settling) ? WAIT_HURRY_NS : WAIT_TICK_NS;
}

/* Under the set's lock. */
static bool is_settling(const struct item *it)
{
	if (!handshake_hurries(it->sock))
		return false;
	atomic_store(&it->set->settling, true);
	return true;
}

/* Under the set's lock. Whether a tick has something to do for it. */
static bool is_due(struct item *it)
{
	bool long_parked = it->parked && it->parked_long;

	it->parked_long = it->parked;
	if (it->parked)
		return long_parked;
	return is_settling(it) || (sock_kind(it->sock) == SOCK_SMC && atomic_load(procs_word(it->sock->stream.procs)) != it->sock->heard);
}

static void tick(struct set *set, struct sock *s, int fd, bool parked)
{
	if (parked) {
		item_retire(set, s, fd);
		return;
	}
	if (handshake_drive(s, fd) && sock_kind(s) == SOCK_SMC)
		sock_check(s, fd);
	epoll_news(s);
}

/* Some of those that are due; whether there may be more. */
static bool tick_some(struct set *set)
{
	enum { SOME = 64 };
	struct due {
		struct sock *sock;
		int fd;
		bool parked;
	} due[SOME];
	unsigned int n = 0;
	bool more;

	lock_take(&set->lock);
	for (struct item *it = set->items; it != NULL && n < SOME; it = it->after) {
		if (!it->due)
			continue;
		it->due = false;
		atomic_fetch_add(&it->sock->refs, 1);
		due[n++] = (struct due){ it->sock, it->fd, it->parked };
	}
	lock_release(&set->lock);
	more = n == SOME;
	while (n-- > 0) {
		tick(set, due[n].sock, due[n].fd, due[n].parked);
		sock_put(due[n].sock);
	}
	return more;
}

void set_tick(struct set *set)
{
	int64_t now = now_ns();

	if (now - set->ticked < set_tick_ns(set))
		return;
	set->ticked = now;
	atomic_store(&set->settling, false);
	link_sweep();
	lock_take(&set->lock);
	for (struct item *it = set->items; it != NULL; it = it->after)
		it->due = is_due(it);
	lock_release(&set->lock);
	while (tick_some(set)) {
	}
}

/* ---- looking ---- */

/* A connection whose news come by a page, with a reference; NULL: there is none. */
static struct sock *on_a_page(struct set *set)
{
	struct sock *s = NULL;

	lock_take(&set->lock);
	for (struct item *it = set->items; it != NULL && s == NULL; it = it->after)
		if (it->page != NULL)
			s = it->sock;
	if (s != NULL)
		atomic_fetch_add(&s->refs, 1);
	lock_release(&set->lock);
	return s;
}

struct look {
	struct set *set;
	struct own_page *pages[MOST_PAGES]; /* from the first look on */
	unsigned int n;
};

static void take_pages(struct look *l)
{
	struct own_page *p;

	while (l->n < MOST_PAGES && (p = set_page(l->set, l->n)) != NULL)
		l->pages[l->n++] = p;
}

static bool has_bits(const struct look *l)
{
	for (unsigned int i = 0; i < l->n; i++)
		if (page_has_bits(&l->pages[i]->page, atomic_load(&l->pages[i]->words)))
			return true;
	return false;
}

static bool has_news(void *look)
{
	struct look *l = look;

	if (l->n == 0)
		take_pages(l);
	if (!has_bits(l))
		return atomic_load(&l->set->first) != NULL;
	set_look(l->set);
	return set_has_candidates(l->set);
}

bool set_spin(struct set *set, int64_t now, bool *watched)
{
	struct sock *s = on_a_page(set);
	struct look l;
	bool met;

	*watched = false;
	if (s == NULL)
		return false;
	l.set = set;
	l.n = 0;
	met = wait_look(s, &set->spinning, now, has_news, &l, watched);
	while (l.n > 0)
		page_put(l.pages[--l.n]);
	sock_put(s);
	return met;
}

/* ---- sleeping ---- */

int set_ask_kernel(int epfd, struct epoll_event *events, int most, int64_t until, const sigset_t *mask, struct signals since)
{
	bool ends = signals_end(since, true, 0) && until > now_ns();
	struct timespec left = time_left(ends ? 0 : until);
	int n = real()->epoll_pwait2(epfd, events, most, until == FOREVER && !ends ? NULL : &left, mask);

	return n == 0 && ends ? (int)io_result(-EINTR) : n;
}

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

int64_t set_lie_down(struct set *set, struct rest *rest, int64_t until)
{
	atomic_store(&set->kicked, false);
	atomic_fetch_add(&set->sleeping, 1);
	until = announce_sleep(set, rest, until);
	set_look(set);
	return set_has_candidates(set) ? 0 : until;
}

void set_get_up(struct set *set, struct rest *rest)
{
	atomic_fetch_sub(&set->sleeping, 1);
	atomic_store(&set->kicked, false);
	take_back_sleep(set, rest);
}
