/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "poll_set.h"
#include "real.h"
#include "table.h"

/* So many connections may lie aside, beside as many as are asked for. */
enum { MOST_ASIDE = 64 };

static _Thread_local struct {
	struct set *set;
	bool taken; /* by a call that a signal's handler has interrupted, perhaps for good */
} mine;

/* All threads', for a child of fork: its own descriptors of them have to go. */
static struct set *all;
static struct lock all_lock;

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_key;

/* ---- their life ---- */

static void end_with_thread(void *set)
{
	struct set **at = &all;

	mine.set = NULL;
	lock_take(&all_lock);
	while (*at != set)
		at = &(*at)->behind;
	*at = (*at)->behind;
	lock_release(&all_lock);
	set_end(set);
}

static void make_key(void)
{
	has_key = pthread_key_create(&key, end_with_thread) == 0;
}

static struct set *make(void)
{
	int fd = hidden_take(real()->epoll_create1(EPOLL_CLOEXEC));
	struct set *set = fd >= 0 ? set_new(fd) : NULL;

	if (set == NULL) {
		hidden_close(fd);
		return NULL;
	}
	set->of_thread = true;
	if (pthread_setspecific(key, set) != 0) {
		set_put(set);
		return NULL;
	}
	lock_take(&all_lock);
	set->behind = all;
	all = set;
	lock_release(&all_lock);
	return set;
}

struct set *poll_set_take(void)
{
	if (mine.taken || pthread_once(&once, make_key) != 0 || !has_key)
		return NULL;
	if (mine.set == NULL)
		mine.set = make();
	if (mine.set == NULL)
		return NULL;
	mine.taken = true;
	mine.set->round++;
	mine.set->wanted = 0;
	return mine.set;
}

void poll_set_give(struct set *set)
{
	(void)set;
	mine.taken = false;
}

void poll_set_forked(void)
{
	struct set *next;

	all_lock.word = 0;
	for (struct set *set = all; set != NULL; set = next) {
		next = set->behind;
		hidden_close(set->kick);
		hidden_close(set->fd);
		free(set->pages);
		free(set);
	}
	all = NULL;
	mine.set = NULL;
	mine.taken = false;
	if (has_key)
		(void)pthread_setspecific(key, NULL);
}

/* ---- what is asked for ---- */

bool poll_set_want(struct set *set, struct sock *s, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events };
	struct item *it;

	lock_take(&s->listing);
	it = item_find(s, set, fd);
	if (it == NULL)
		it = item_add(set, s, fd, &e);
	if (it != NULL) {
		lock_take(&set->lock);
		if (it->round == set->round)
			events |= it->events; /* twice in one call */
		else
			set->wanted++;
		if (it->disabled || it->events != events) {
			it->events = events;
			it->disabled = false;
			set_queue(it);
		}
		it->round = set->round;
		lock_release(&set->lock);
	}
	lock_release(&s->listing);
	return it != NULL;
}

/* One that is not asked for, with a reference. */
static struct sock *any_aside(struct set *set, int *fd)
{
	struct sock *s = NULL;

	lock_take(&set->lock);
	for (struct item *it = set->items; it != NULL && s == NULL; it = it->after)
		if (it->round != set->round) {
			s = it->sock;
			*fd = it->fd;
			atomic_fetch_add(&s->refs, 1);
		}
	lock_release(&set->lock);
	return s;
}

static void drop_aside(struct set *set)
{
	struct sock *s;
	int fd = -1;

	while ((s = any_aside(set, &fd)) != NULL) {
		lock_take(&s->listing);
		if (items_remove(s, set, fd))
			(void)real()->epoll_ctl(set->fd, EPOLL_CTL_DEL, fd, NULL);
		lock_release(&s->listing);
		sock_put(s);
	}
}

void poll_set_settle(struct set *set)
{
	unsigned int count = atomic_load(&set->count);

	if (count <= set->wanted)
		return;
	if (count > 2 * set->wanted + MOST_ASIDE) {
		drop_aside(set);
		return;
	}
	lock_take(&set->lock);
	for (struct item *it = set->items; it != NULL; it = it->after)
		if (it->round != set->round)
			it->disabled = true;
	lock_release(&set->lock);
}
