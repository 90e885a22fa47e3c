/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of sets: what the kernel's set listens to of each, and what comes to them from outside. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "epoll_set.h"
#include "handshake.h"
#include "real.h"
#include "table.h"

/* ---- what the kernel's set listens to ---- */

/* What was let go of in a shared set is there still. */
static int start_listening(const struct set *set, int op, int fd, uint32_t events, uint64_t data)
{
	int result = set_control(set->fd, op, fd, events, data);

	return result != 0 && op == EPOLL_CTL_ADD && errno == EEXIST ? set_control(set->fd, EPOLL_CTL_MOD, fd, events, data) : result;
}

/* Another process may need it. */
static void stop_listening(const struct set *set, int fd)
{
	if (!set->shared)
		(void)real()->epoll_ctl(set->fd, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- pages in a set; under its lock ---- */

static void use_page(struct item *it, struct own_page *p)
{
	struct set *set = it->set;
	unsigned int n = set->page_count;
	struct page_use *more;

	it->page = p;
	for (unsigned int i = 0; i < n; i++)
		if (set->pages[i].page == p) {
			set->pages[i].users++;
			return;
		}
	more = n < MOST_PAGES ? realloc(set->pages, (n + 1) * sizeof(*more)) : NULL;
	if (more == NULL) {
		it->page = NULL;
		return;
	}
	more[n] = (struct page_use){ .page = p, .users = 1, .visits = atomic_load(&p->visits) };
	page_use(p, 1);
	set->pages = more;
	atomic_fetch_add(&p->refs, 1);
	set->page_count = n + 1;
	/* The threads of a process can sleep on one page, each in its set: one that wakes is enough, and hands on to the others. */
	(void)set_control(set->fd, EPOLL_CTL_ADD, p->page.bell, EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, mark_data(MARK_PAGE, p->page.bell));
}

static struct own_page *leave_page(struct item *it)
{
	struct set *set = it->set;
	struct own_page *p = it->page;
	unsigned int n = set->page_count;

	it->page = NULL;
	for (unsigned int i = 0; i < n; i++) {
		if (set->pages[i].page != p || --set->pages[i].users > 0)
			continue;
		stop_listening(set, p->page.bell);
		if (set->pages[i].shown && !p->inherited)
			page_awake(p, false);
		page_use(p, -1);
		set->pages[i] = set->pages[n - 1];
		set->page_count = n - 1;
		return p;
	}
	return NULL;
}

/* ---- items ---- */

/* Listen to what a connection needs of TCP in its state. */
static int listen_to_tcp(const struct item *it, int op)
{
	const struct sock *s = it->sock;
	uint32_t events = EPOLLIN | EPOLLRDHUP;

	if (sock_kind(s) == SOCK_FAILED)
		events = 0;
	else if (sock_kind(s) != SOCK_SMC)
		events = (uint32_t)handshake_awaits(s, POLLOUT);
	return start_listening(it->set, op, it->fd, events | EPOLLET, mark_data(MARK_TCP, it->fd));
}

/* And where news of its bytes come. Under the set's lock. */
static void listen_to_peer(struct item *it)
{
	struct sock *s = it->sock;
	struct own_page *p;

	if (sock_kind(s) != SOCK_SMC) {
		if (handshake_hurries(s))
			atomic_store(&it->set->settling, true);
		return;
	}
	p = link_page(&s->link);
	if (p != NULL)
		use_page(it, p);
	if (it->page == NULL) {
		it->on_bell = true;
		(void)start_listening(it->set, EPOLL_CTL_ADD, s->stream.own_bell, EPOLLIN | EPOLLET, mark_data(MARK_BELL, it->fd));
	}
}

static struct item *item_new(struct set *set, struct sock *s, int fd, const struct epoll_event *event, int op)
{
	struct item *it = malloc(sizeof(*it));
	bool first;

	if (it == NULL)
		return NULL;
	*it = (struct item){ .set = set, .sock = s, .fd = fd, .events = event->events, .data = event->data, .next = s->items };
	if (listen_to_tcp(it, op) != 0) {
		free(it);
		return NULL;
	}
	atomic_fetch_add(&s->refs, 1);
	atomic_fetch_add(&s->registered, 1);
	atomic_fetch_add(&set->refs, 1);
	s->items = it;
	lock_take(&set->lock);
	it->after = set->items;
	if (set->items != NULL)
		set->items->before = it;
	set->items = it;
	first = atomic_fetch_add(&set->count, 1) == 0;
	listen_to_peer(it);
	set_queue(it);
	lock_release(&set->lock);
	if (first || atomic_load(&set->sleeping) > 0 || atomic_load(&set->nested))
		set_kick(set); /* threads that wait in a set without connections do not count themselves */
	return it;
}

static struct item *find(struct sock *s, const struct set *set, int fd)
{
	struct item *it = s->items;

	while (it != NULL && (it->set != set || it->fd != fd))
		it = it->next;
	return it;
}

struct item *item_find(struct sock *s, const struct set *set, int fd)
{
	struct item *it = find(s, set, fd);

	return it != NULL && !it->parked ? it : NULL;
}

void item_change(struct item *it, const struct epoll_event *event)
{
	lock_take(&it->set->lock);
	it->events = event->events;
	it->data = event->data;
	it->told = 0;
	it->disabled = it->parked = false;
	lock_release(&it->set->lock);
	set_queue_and_kick(it);
}

struct item *item_add(struct set *set, struct sock *s, int fd, const struct epoll_event *event)
{
	struct item *it = find(s, set, fd);

	if (it == NULL)
		return item_new(set, s, fd, event, EPOLL_CTL_ADD);
	atomic_fetch_add(&s->registered, 1);
	item_change(it, event);
	return it;
}

void item_park(struct item *it)
{
	lock_take(&it->set->lock);
	it->disabled = it->parked = true;
	it->parked_long = false;
	lock_release(&it->set->lock);
	atomic_fetch_sub(&it->sock->registered, 1);
}

static void unqueue(struct item *it)
{
	struct set *set = it->set;
	struct item *before = NULL;

	if (!it->queued)
		return;
	for (struct item *i = set->first; i != it; i = i->candidate)
		before = i;
	if (before != NULL)
		before->candidate = it->candidate;
	else
		set->first = it->candidate;
	if (set->last == it)
		set->last = before;
}

/* Under listing. The caller has taken it out of the socket's list. */
static void item_free(struct item *it, bool bell_of_others)
{
	struct set *set = it->set;
	struct own_page *p = NULL;

	lock_take(&set->lock);
	unqueue(it);
	if (it->before != NULL)
		it->before->after = it->after;
	else
		set->items = it->after;
	if (it->after != NULL)
		it->after->before = it->before;
	atomic_fetch_sub(&set->count, 1);
	if (it->page != NULL)
		p = leave_page(it);
	if (it->on_bell && !bell_of_others)
		stop_listening(set, it->sock->stream.own_bell);
	if (it->parked)
		stop_listening(set, it->fd);
	else
		atomic_fetch_sub(&it->sock->registered, 1);
	lock_release(&set->lock);
	if (set->of_thread && atomic_load(&set->sleeping) > 0)
		set_kick(set); /* a call of poll asks for it still */
	if (p != NULL)
		page_put(p);
	sock_put(it->sock);
	set_put(set);
	free(it);
}

/* Takes out those of a socket that are of a set (NULL: any) and a descriptor (-1: any). Under listing. */
bool items_remove(struct sock *s, const struct set *set, int fd)
{
	bool any = false;

	for (struct item *_Atomic *at = &s->items; *at != NULL;) {
		struct item *it = *at;
		bool others = false;

		if ((set != NULL && it->set != set) || (fd >= 0 && it->fd != fd)) {
			at = &it->next;
			continue;
		}
		*at = it->next;
		for (struct item *i = s->items; i != NULL; i = i->next)
			others = others || (i->set == it->set && i->on_bell);
		item_free(it, others);
		any = true;
	}
	return any;
}

void item_retire(struct set *set, struct sock *s, int fd)
{
	struct item *it;

	lock_take(&s->listing);
	it = find(s, set, fd);
	if (it != NULL && it->parked)
		items_remove(s, set, fd);
	lock_release(&s->listing);
}

unsigned int items_forked(struct sock *s)
{
	unsigned int n = 0;

	for (struct item *_Atomic *at = &s->items; *at != NULL;) {
		struct item *it = *at;

		if (it->set->of_thread) { /* another thread's, or to be made anew */
			*at = it->next;
			atomic_fetch_sub(&s->registered, 1);
			free(it);
			continue;
		}
		it->set->lock.word = 0;
		at = &it->next;
		n++;
	}
	return n;
}

/* ---- from outside ---- */

void epoll_news(struct sock *s)
{
	if (s->waiters[READER] + s->waiters[WRITER] > 0)
		stream_rouse(&s->stream);
	lock_take(&s->listing);
	for (struct item *it = s->items; it != NULL; it = it->next)
		set_queue_and_kick(it);
	lock_release(&s->listing);
}

/* Who has the list may wait for a set that is this thread's. */
bool epoll_is_mine(struct sock *s)
{
	bool mine = false;

	if (s->items == NULL)
		return false;
	if (!lock_try(&s->listing))
		return true;
	for (struct item *it = s->items; it != NULL; it = it->next)
		mine = mine || lock_is_mine(&it->set->lock);
	lock_release(&s->listing);
	return mine;
}

void epoll_settled(struct sock *s)
{
	bool plain = sock_kind(s) == SOCK_PLAIN;

	lock_take(&s->listing);
	for (struct item *it = s->items; it != NULL; it = it->next) {
		if (plain) {
			struct epoll_event event = { it->events, it->data };

			(void)real()->epoll_ctl(it->set->fd, EPOLL_CTL_MOD, it->fd, &event);
			continue;
		}
		lock_take(&it->set->lock);
		(void)listen_to_tcp(it, EPOLL_CTL_MOD);
		listen_to_peer(it);
		lock_release(&it->set->lock);
		set_queue_and_kick(it);
	}
	if (plain)
		items_remove(s, NULL, -1);
	lock_release(&s->listing);
}

void epoll_forget(struct sock *s, int fd)
{
	if ((unsigned int)fd < TABLE_SIZE)
		atomic_store(&registered[fd].epfd, 0);
	if (s == NULL)
		return;
	lock_take(&s->listing);
	items_remove(s, NULL, fd);
	lock_release(&s->listing);
}

void epoll_adopt(struct sock *s, int fd)
{
	struct registration *r = &registered[fd];
	int epfd = atomic_load_explicit(&r->epfd, memory_order_acquire);
	struct set *set;

	if (epfd == 0)
		return;
	set = set_make(epfd - 1);
	if (set == NULL)
		return;
	lock_take(&s->listing);
	(void)item_new(set, s, fd, &r->event, EPOLL_CTL_MOD);
	lock_release(&s->listing);
	atomic_store(&r->epfd, 0);
	set_put(set);
}
