/* SPDX-License-Identifier: Apache-2.0 */
/* epoll_wait and its kin. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <poll.h>

#include "epoll_set.h"
#include "handshake.h"
#include "real.h"
#include "table.h"
#include "wait.h"

/* How long a sleep lasts before the peers' lives are looked after; how long the kernel is not asked while connections are ready. */
static const int64_t tick_ns = INT64_C(1000000000), hurry_ns = INT64_C(100000000), unasked_ns = 50000;

enum { ALWAYS = EPOLLERR | EPOLLHUP, ITEM_BITS = EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLRDHUP };

/* ---- items; under the set's lock ---- */

static uint32_t ready_now(const struct item *it)
{
	struct sock *s = it->sock;
	uint32_t ready = 0;

	if (sock_kind(s) == SOCK_SMC)
		ready = (uint16_t)stream_ready(&s->stream);
	else if (sock_kind(s) == SOCK_HANDSHAKE)
		ready = (uint16_t)handshake_ready(s);
	else if (sock_kind(s) == SOCK_FAILED)
		ready = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP;
	return ready & ((it->events & ITEM_BITS) | ALWAYS);
}

/* Tell the peer what to signal. A thread that is blocked on the connection and is overruled here hears of it by epoll_news. */
static void announce_item(struct item *it)
{
	struct sock *s = it->sock;
	uint8_t how = it->page != NULL ? STREAM_ON_PAGE : ISMFS_SLEEPS_ON_BELL;

	lock_take(&s->watching);
	stream_announce(&s->stream, READER, how);
	if (it->events & EPOLLOUT)
		stream_announce(&s->stream, WRITER, how);
	lock_release(&s->watching);
	stream_settle_cursor(&s->stream);
}

/* Has the peer done anything since an edge was reported that makes another one? */
static bool has_moved(const struct item *it, uint32_t reported)
{
	struct stream_words now = stream_words(&it->sock->stream);
	struct word then = word_unpack(it->seen.consumer), word = word_unpack(now.consumer);

	if (now.producer != it->seen.producer || word.state_flags != then.state_flags)
		return true;
	return (it->events & EPOLLOUT) && !(reported & EPOLLOUT) && now.consumer != it->seen.consumer;
}

/* Look at one candidate: what is to be reported of it, 0 for nothing. */
static uint32_t look_at(struct item *it)
{
	bool smc = sock_kind(it->sock) == SOCK_SMC;
	uint32_t ready;

	if (smc)
		it->seen = stream_words(&it->sock->stream);
	ready = ready_now(it);
	if (ready == 0 && smc) {
		announce_item(it);
		it->seen = stream_words(&it->sock->stream);
		ready = ready_now(it);
	}
	if (ready == 0)
		return 0;
	if (it->events & EPOLLONESHOT) {
		it->disabled = true;
	} else if (!(it->events & EPOLLET)) {
		set_queue(it);
	} else if (smc) {
		announce_item(it);
		if (has_moved(it, ready))
			set_queue(it);
	}
	return ready;
}

static int harvest(struct set *set, struct epoll_event *events, int most)
{
	struct item *end, *it;
	int n = 0;

	lock_take(&set->lock);
	end = set->last;
	while (n < most && (it = set->first) != NULL) {
		uint32_t ready;

		set->first = it->candidate;
		if (set->first == NULL)
			set->last = NULL;
		it->queued = false;
		ready = it->disabled ? 0 : look_at(it);
		if (ready != 0) {
			events[n].events = ready;
			events[n].data = it->data;
			n++;
		}
		if (it == end)
			break;
	}
	lock_release(&set->lock);
	return n;
}

/* ---- what the kernel's set has to say ---- */

static void drain(int fd)
{
	char bytes[4096];

	(void)!real()->read(fd, bytes, sizeof(bytes));
}

static void take_event(struct set *set, enum mark mark, int fd)
{
	struct sock *s;

	switch (mark) {
	case MARK_KICK:
		drain(set->kick);
		break;
	case MARK_PAGE:
		drain(fd);
		break;
	case MARK_TCP:
	case MARK_BELL:
		s = table_get(fd, false);
		if (s == NULL)
			break;
		if (mark == MARK_BELL && sock_kind(s) == SOCK_SMC)
			drain(s->stream.own_bell);
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

/* The set's page number i, with a reference; NULL: there are not so many. */
static struct own_page *page_at(struct set *set, unsigned int i)
{
	struct own_page *p = NULL;

	lock_take(&set->lock);
	if (i < set->page_count) {
		p = set->pages[i].page;
		atomic_fetch_add(&p->refs, 1);
	}
	lock_release(&set->lock);
	return p;
}

static void look_at_pages(struct set *set)
{
	struct own_page *p;

	for (unsigned int i = 0; (p = page_at(set, i)) != NULL; i++) {
		page_look(p);
		page_put(p);
	}
}

static int64_t tick_of(const struct set *set)
{
	return atomic_load(&set->settling) ? hurry_ns : tick_ns;
}

/* Under the set's lock. */
static bool is_settling(const struct item *it)
{
	int kind = sock_kind(it->sock);

	if (kind != SOCK_HANDSHAKE && kind != SOCK_CONNECTING)
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
enum { MOST_PAGES = 64 };

static unsigned int announce_sleep(struct set *set, struct own_page **pages)
{
	unsigned int n = 0;

	while (n < MOST_PAGES && (pages[n] = page_at(set, n)) != NULL)
		page_sleep(pages[n++]);
	return n;
}

static void take_back_sleep(struct own_page **pages, unsigned int n)
{
	while (n-- > 0) {
		page_awake(pages[n]);
		page_look(pages[n]);
		page_put(pages[n]);
	}
}

static bool has_candidates(struct set *set)
{
	bool any;

	lock_take(&set->lock);
	any = set->first != NULL;
	lock_release(&set->lock);
	return any;
}

/* Sleep in the kernel unless there is something after all. Returns what epoll_wait does. */
static int sleep_in(struct set *set, const struct request *r, int64_t until)
{
	struct own_page *pages[MOST_PAGES];
	unsigned int n;
	int k, saved;

	if (until <= now_ns())
		return ask_kernel(r, 0, 0);
	atomic_fetch_add(&set->sleeping, 1);
	n = announce_sleep(set, pages);
	look_at_pages(set);
	k = ask_kernel(r, 0, has_candidates(set) ? 0 : until);
	saved = errno;
	take_back_sleep(pages, n);
	atomic_fetch_sub(&set->sleeping, 1);
	errno = saved;
	return k;
}

static int wait_in(struct set *set, const struct request *r)
{
	for (;;) {
		int64_t now, until;
		int n, k;

		look_at_pages(set);
		n = harvest(set, r->events, r->most);
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
		set->asked = now_ns();
		n = sort_out(set, r->events, k);
		if (n < r->most)
			n += harvest(set, r->events + n, r->most - n);
		if (n > 0 || set->asked >= r->deadline)
			return n;
	}
}

/* Without connections it is the kernel's; those that another thread adds meanwhile wake it. */
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

EXPORT int epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
	struct request r = { epfd, events, most, deadline_in(timeout), NULL };

	return set_any() ? wait_events(&r) : real()->epoll_wait(epfd, events, most, timeout);
}

EXPORT int epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
	struct request r = { epfd, events, most, deadline_in(timeout), mask };

	return set_any() ? wait_events(&r) : real()->epoll_pwait(epfd, events, most, timeout, mask);
}

EXPORT int epoll_pwait2(int epfd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask)
{
	struct request r = { epfd, events, most, FOREVER, mask };

	if (!set_any())
		return real()->epoll_pwait2(epfd, events, most, timeout, mask);
	if (timeout != NULL)
		r.deadline = now_ns() + timeout->tv_sec * INT64_C(1000000000) + timeout->tv_nsec;
	return wait_events(&r);
}
