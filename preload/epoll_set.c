/* SPDX-License-Identifier: Apache-2.0 */
/* Sets and their items, and what changes items from outside. epoll_ctl itself is in epoll_ctl.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "epoll_set.h"
#include "handshake.h"
#include "real.h"
#include "table.h"

static struct set *_Atomic sets[TABLE_SIZE];
static struct lock sets_lock;

struct registration registered[TABLE_SIZE];

/* ---- marked data: a random half, a kind, a descriptor ---- */

static uint32_t secret;

uint64_t mark_data(enum mark mark, int fd)
{
	while (secret == 0)
		if (getrandom(&secret, sizeof(secret), 0) != (ssize_t)sizeof(secret))
			secret = 0x49534d46;
	return (uint64_t)secret << 32 | (uint64_t)mark << 28 | (uint32_t)fd;
}

enum mark mark_of(uint64_t data, int *fd)
{
	uint32_t mark = (uint32_t)data >> 28;

	*fd = (int)(data & 0xFFFFFFF);
	if (secret == 0 || data >> 32 != secret || mark > MARK_PAGE)
		return MARK_NONE;
	return (enum mark)mark;
}

int set_control(int epfd, int op, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = { .events = events, .data.u64 = data };

	return real()->epoll_ctl(epfd, op, fd, &e);
}

/* ---- sets ---- */

struct set *set_get(int epfd)
{
	struct set *set;

	if ((unsigned int)epfd >= TABLE_SIZE || atomic_load_explicit(&sets[epfd], memory_order_acquire) == NULL)
		return NULL;
	lock_take(&sets_lock);
	set = atomic_load(&sets[epfd]);
	if (set != NULL)
		atomic_fetch_add(&set->refs, 1);
	lock_release(&sets_lock);
	return set;
}

void set_put(struct set *set)
{
	if (atomic_fetch_sub(&set->refs, 1) != 1)
		return;
	hidden_close(set->kick);
	free(set->pages);
	free(set);
}

static atomic_bool any_set;

bool set_any(void)
{
	return atomic_load_explicit(&any_set, memory_order_relaxed);
}

struct set *set_make(int epfd)
{
	struct set *set = set_get(epfd);

	if (set != NULL || (unsigned int)epfd >= TABLE_SIZE)
		return set;
	lock_take(&sets_lock);
	set = atomic_load(&sets[epfd]);
	if (set == NULL)
		set = calloc(1, sizeof(*set));
	if (set != NULL && set->refs == 0) {
		set->fd = epfd;
		set->kick = hidden_take(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		if (set->kick < 0 || set_control(epfd, EPOLL_CTL_ADD, set->kick, EPOLLIN, mark_data(MARK_KICK, 0)) != 0) {
			hidden_close(set->kick);
			free(set);
			set = NULL;
		} else {
			set->refs = 1;
			atomic_store(&any_set, true);
			atomic_store_explicit(&sets[epfd], set, memory_order_release);
		}
	}
	if (set != NULL)
		atomic_fetch_add(&set->refs, 1);
	lock_release(&sets_lock);
	return set;
}

void set_queue(struct item *it)
{
	struct set *set = it->set;

	if (it->queued || it->disabled)
		return;
	it->queued = true;
	it->candidate = NULL;
	if (set->last != NULL)
		set->last->candidate = it;
	else
		set->first = it;
	set->last = it;
}

void set_queue_and_kick(struct item *it)
{
	struct set *set = it->set;
	uint64_t one = 1;

	lock_take(&set->lock);
	set_queue(it);
	lock_release(&set->lock);
	if (atomic_load(&set->sleeping) > 0)
		(void)!real()->write(set->kick, &one, sizeof(one));
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
	more = realloc(set->pages, (n + 1) * sizeof(*more));
	if (more == NULL) {
		it->page = NULL;
		return;
	}
	more[n] = (struct page_use){ p, 1 };
	set->pages = more;
	atomic_fetch_add(&p->refs, 1);
	set->page_count = n + 1;
	(void)set_control(set->fd, EPOLL_CTL_ADD, p->page.bell, EPOLLIN | EPOLLET, mark_data(MARK_PAGE, p->page.bell));
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
		(void)real()->epoll_ctl(set->fd, EPOLL_CTL_DEL, p->page.bell, NULL);
		set->pages[i] = set->pages[n - 1];
		set->page_count = n - 1;
		return p;
	}
	return NULL;
}

/* ---- items ---- */

/* Listen to what a connection needs in its state. Under listing and the set's lock. */
static void listen_to(struct item *it)
{
	struct sock *s = it->sock;
	struct own_page *p;

	if (sock_kind(s) != SOCK_SMC) {
		atomic_store(&it->set->settling, true);
		uint32_t events = sock_kind(s) == SOCK_FAILED ? 0 : (uint32_t)handshake_awaits(s);

		(void)set_control(it->set->fd, EPOLL_CTL_MOD, it->fd, events | EPOLLET, mark_data(MARK_TCP, it->fd));
		return;
	}
	(void)set_control(it->set->fd, EPOLL_CTL_MOD, it->fd, EPOLLIN | EPOLLRDHUP | EPOLLET, mark_data(MARK_TCP, it->fd));
	p = link_page(&s->link);
	if (p != NULL)
		use_page(it, p);
	if (it->page == NULL) {
		it->on_bell = true;
		(void)set_control(it->set->fd, EPOLL_CTL_ADD, s->stream.own_bell, EPOLLIN | EPOLLET, mark_data(MARK_BELL, it->fd));
	}
}

struct item *item_new(struct set *set, struct sock *s, int fd, const struct epoll_event *event)
{
	struct item *it = calloc(1, sizeof(*it));

	if (it == NULL)
		return NULL;
	atomic_fetch_add(&s->refs, 1);
	atomic_fetch_add(&set->refs, 1);
	it->set = set;
	it->sock = s;
	it->fd = fd;
	it->events = event->events;
	it->data = event->data;
	it->next = s->items;
	s->items = it;
	lock_take(&set->lock);
	it->after = set->items;
	if (set->items != NULL)
		set->items->before = it;
	set->items = it;
	atomic_fetch_add(&set->count, 1);
	listen_to(it);
	set_queue(it);
	lock_release(&set->lock);
	return it;
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
		(void)real()->epoll_ctl(set->fd, EPOLL_CTL_DEL, it->sock->stream.own_bell, NULL);
	lock_release(&set->lock);
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

struct item *item_find(struct sock *s, const struct set *set, int fd)
{
	struct item *it = s->items;

	while (it != NULL && (it->set != set || it->fd != fd))
		it = it->next;
	return it;
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
		listen_to(it);
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
		registered[fd].epfd = 0;
	if (s == NULL)
		return;
	lock_take(&s->listing);
	items_remove(s, NULL, fd);
	lock_release(&s->listing);
}

void epoll_adopt(struct sock *s, int fd)
{
	struct registration *r = &registered[fd];
	struct set *set;

	if (r->epfd == 0)
		return;
	set = set_make(r->epfd - 1);
	if (set == NULL)
		return;
	lock_take(&s->listing);
	(void)item_new(set, s, fd, &r->event);
	lock_release(&s->listing);
	r->epfd = 0;
	set_put(set);
}

void epoll_closed(int fd)
{
	struct set *set = set_get(fd);

	if ((unsigned int)fd < TABLE_SIZE)
		registered[fd].epfd = 0;
	if (set == NULL)
		return;
	lock_take(&sets_lock);
	atomic_store(&sets[fd], NULL);
	lock_release(&sets_lock);
	for (;;) {
		struct sock *s = NULL;

		lock_take(&set->lock);
		if (set->items != NULL) {
			s = set->items->sock;
			atomic_fetch_add(&s->refs, 1);
		}
		lock_release(&set->lock);
		if (s == NULL)
			break;
		lock_take(&s->listing);
		items_remove(s, set, -1);
		lock_release(&s->listing);
		sock_put(s);
	}
	set_put(set);
	set_put(set); /* the table's */
}

bool epoll_knows(int fd)
{
	return registered[fd].epfd != 0 || atomic_load_explicit(&sets[fd], memory_order_relaxed) != NULL;
}

/* The kernel's set is shared with the parent, and what is in it speaks of the parent's items. */
void epoll_forked(void)
{
	sets_lock.word = 0;
}
