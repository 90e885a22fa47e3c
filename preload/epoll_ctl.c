/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>

#include "epoll_set.h"
#include "handshake.h"
#include "plain.h"
#include "real.h"
#include "table.h"

static int fail(int error)
{
	errno = error;
	return -1;
}

/* What the kernel makes of a call on a descriptor of a set. 0: nothing. */
static int refused(int op, const struct epoll_event *event)
{
	const uint32_t exclusive = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

	if (op == EPOLL_CTL_DEL)
		return 0;
	if (event == NULL)
		return EFAULT;
	if (op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD)
		return EINVAL;
	if (!(event->events & EPOLLEXCLUSIVE))
		return 0;
	return op == EPOLL_CTL_MOD || (event->events & ~exclusive) != 0 ? EINVAL : 0;
}

static int add(struct set *set, struct sock *s, int fd, const struct epoll_event *event)
{
	if (item_find(s, set, fd) != NULL)
		return fail(EEXIST);
	return item_add(set, s, fd, event) != NULL ? 0 : -1;
}

static int modify(struct set *set, struct sock *s, int fd, const struct epoll_event *event)
{
	struct item *it = item_find(s, set, fd);

	if (it == NULL)
		return fail(ENOENT);
	if (it->events & EPOLLEXCLUSIVE)
		return fail(EINVAL);
	item_change(it, event);
	return 0;
}

static int take_out(struct set *set, struct sock *s, int fd)
{
	struct item *it = item_find(s, set, fd);

	if (it == NULL)
		return fail(ENOENT);
	if (sock_kind(s) == SOCK_SMC) {
		item_park(it);
		return 0;
	}
	items_remove(s, set, fd);
	return real()->epoll_ctl(set->fd, EPOLL_CTL_DEL, fd, NULL);
}

static int change(int epfd, int op, int fd, struct epoll_event *event, struct sock *s)
{
	struct set *set = op == EPOLL_CTL_ADD ? set_make(epfd) : set_get(epfd);
	int result, error;

	if (set == NULL)
		return real()->epoll_ctl(epfd, op, fd, event);
	error = refused(op, event);
	if (error != 0) {
		set_put(set);
		return fail(error);
	}
	lock_take(&s->listing);
	if (op == EPOLL_CTL_ADD)
		result = add(set, s, fd, event);
	else if (op == EPOLL_CTL_MOD)
		result = modify(set, s, fd, event);
	else
		result = take_out(set, s, fd);
	lock_release(&s->listing);
	set_put(set);
	if (result == 0 && op == EPOLL_CTL_ADD)
		handshake_drive(s, fd);
	return result;
}

/*
 * What is in two sets before it is a connection stays on TCP: of the last one alone is known what it asks for. Plain stores: event loops of TCP
 * connections call epoll_ctl as often as read, and a locked one would be dearer than all the rest here.
 */
static void remember(int epfd, int op, int fd, const struct epoll_event *event)
{
	struct registration *r = &registered[fd];
	int before = atomic_load_explicit(&r->epfd, memory_order_relaxed);

	if (before != 0 && before != epfd + 1 && set_is_another(before - 1, epfd)) {
		if (op != EPOLL_CTL_ADD)
			return;
		if (!plain_spread(fd, NOTE_SHARED))
			(void)table_swap(fd, NOTE_NONE, NOTE_SHARED); /* whatever it is, and whoever has made it */
	}
	if (op != EPOLL_CTL_DEL)
		r->event = *event;
	atomic_store_explicit(&r->epfd, op == EPOLL_CTL_DEL ? 0 : epfd + 1, memory_order_release);
	table_more(fd);
}

EXPORT int epoll_create1(int flags)
{
	return epoll_made(real()->epoll_create1(flags));
}

EXPORT int epoll_create(int size)
{
	return epoll_made(real()->epoll_create(size));
}

EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;
	int result;

	if (s != NULL && sock_kind(s) != SOCK_LISTENER && sock_kind(s) != SOCK_PLAIN) {
		result = change(epfd, op, fd, event, s);
		sock_put(s);
		return result;
	}
	if (s != NULL)
		sock_put(s);
	result = real()->epoll_ctl(epfd, op, fd, event);
	if (result == 0 && (unsigned int)fd < TABLE_SIZE) {
		remember(epfd, op, fd, event);
		if (op == EPOLL_CTL_ADD)
			epoll_nested(fd);
	}
	return result;
}
