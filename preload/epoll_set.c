/* SPDX-License-Identifier: Apache-2.0 */
/* Sets: the data that marks what is the library's own in the kernel's, which sets there are, their candidates. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "epoll_set.h"
#include "real.h"
#include "table.h"

static struct set *_Atomic sets[TABLE_SIZE];
static atomic_bool made[TABLE_SIZE]; /* the program's descriptors of sets */
static struct lock sets_lock;
static int sets_end; /* one past the highest that there was; under the lock */

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
	if (set->of_thread)
		hidden_close(set->fd);
	free(set->pages);
	free(set);
}

struct set *set_new(int epfd)
{
	struct set *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->fd = epfd;
	set->refs = 1;
	set->kick = hidden_take(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (set->kick >= 0 && set_control(epfd, EPOLL_CTL_ADD, set->kick, EPOLLIN | EPOLLET, mark_data(MARK_KICK, 0)) == 0)
		return set;
	hidden_close(set->kick);
	free(set);
	return NULL;
}

static atomic_bool any_set;

bool set_any(void)
{
	return atomic_load_explicit(&any_set, memory_order_relaxed);
}

/* Under the lock. */
static void give_number(struct set *set, int epfd)
{
	set->numbers++;
	atomic_store_explicit(&sets[epfd], set, memory_order_release);
	table_more(epfd);
	if (epfd >= sets_end)
		sets_end = epfd + 1;
}

struct set *set_make(int epfd)
{
	struct set *set = set_get(epfd);
	bool outside = false;

	if (set != NULL || (unsigned int)epfd >= TABLE_SIZE)
		return set;
	lock_take(&sets_lock);
	set = atomic_load(&sets[epfd]);
	if (set == NULL) {
		set = set_new(epfd);
		if (set != NULL) {
			atomic_store(&any_set, true);
			give_number(set, epfd);
			outside = atomic_load(&registered[epfd].epfd) != 0;
		}
	}
	if (set != NULL)
		atomic_fetch_add(&set->refs, 1);
	lock_release(&sets_lock);
	if (outside)
		epoll_nested(epfd);
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

_Thread_local struct set *set_at_hand;

/* Whoever comes out of the kernel takes the flag back before it looks at the candidates. */
void set_kick(struct set *set)
{
	uint64_t one = 1;

	if (!atomic_exchange(&set->kicked, true))
		(void)!real()->write(set->kick, &one, sizeof(one));
}

void set_queue_and_kick(struct item *it)
{
	struct set *set = it->set;
	bool disabled;

	lock_take(&set->lock);
	set_queue(it);
	disabled = it->disabled;
	lock_release(&set->lock);
	if (!disabled && set != set_at_hand && (atomic_load(&set->sleeping) > 0 || atomic_load(&set->nested)))
		set_kick(set);
}

void set_end(struct set *set)
{
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
}

int epoll_made(int fd)
{
	if ((unsigned int)fd < TABLE_SIZE) {
		atomic_store_explicit(&made[fd], true, memory_order_relaxed);
		table_more(fd);
	}
	return fd;
}

/* By whichever number something is added, who waits by another one has it. */
void epoll_copied(int from, int to)
{
	struct set *set;

	if ((unsigned int)from >= TABLE_SIZE || (unsigned int)to >= TABLE_SIZE || !atomic_load_explicit(&made[from], memory_order_relaxed))
		return;
	(void)epoll_made(to);
	set = set_make(from);
	if (set == NULL)
		return;
	lock_take(&sets_lock);
	give_number(set, to); /* with the reference */
	lock_release(&sets_lock);
}

bool set_is_another(int one, int epfd)
{
	struct set *set;

	if ((unsigned int)one >= TABLE_SIZE || (unsigned int)epfd >= TABLE_SIZE)
		return true; /* of these nothing is known */
	set = atomic_load(&sets[one]);
	return set != NULL ? set != atomic_load(&sets[epfd]) : atomic_load(&made[one]);
}

static int other_number(const struct set *set)
{
	int fd = 0;

	while (fd < sets_end && atomic_load(&sets[fd]) != set)
		fd++;
	return fd;
}

void epoll_closed(int fd)
{
	struct set *set;
	bool last;

	if ((unsigned int)fd >= TABLE_SIZE)
		return;
	atomic_store(&registered[fd].epfd, 0);
	atomic_store_explicit(&made[fd], false, memory_order_relaxed);
	if (atomic_load_explicit(&sets[fd], memory_order_acquire) == NULL)
		return;
	lock_take(&sets_lock);
	set = atomic_load(&sets[fd]);
	atomic_store(&sets[fd], NULL);
	last = set == NULL || --set->numbers == 0;
	if (!last && atomic_load(&set->fd) == fd)
		atomic_store(&set->fd, other_number(set));
	lock_release(&sets_lock);
	if (set == NULL)
		return;
	if (last)
		set_end(set); /* with the table's reference */
	else
		set_put(set);
}

bool epoll_knows(int fd)
{
	return atomic_load_explicit(&registered[fd].epfd, memory_order_relaxed) != 0 ||
	       atomic_load_explicit(&made[fd], memory_order_relaxed) || atomic_load_explicit(&sets[fd], memory_order_relaxed) != NULL;
}

/* ---- fork ---- */

/* Once for each set, however many numbers it has. */
static void each(void (*f)(struct set *set))
{
	for (int fd = 0; fd < sets_end; fd++) {
		struct set *set = atomic_load(&sets[fd]);

		if (set != NULL && atomic_load(&set->fd) == fd)
			f(set);
	}
}

static void hold(struct set *set)
{
	lock_take(&set->lock);
}

static void share(struct set *set)
{
	set->shared = true;
	lock_release(&set->lock);
}

void epoll_before_fork(void)
{
	lock_take(&sets_lock);
	each(hold);
}

void epoll_in_parent(void)
{
	each(share);
	lock_release(&sets_lock);
}

/* Other threads of the parent's may have waited in it. What is left are the table's references and the items'. */
static void inherit(struct set *set)
{
	set->shared = true;
	set->lock.word = 0;
	set->refs = set->numbers + set->count;
	set->sleeping = 0;
	for (unsigned int i = 0; i < set->page_count; i++)
		page_renew(set->pages[i].page, false);
}

/* What is in the kernel's set speaks of the parent's items. */
void epoll_forked(void)
{
	each(inherit);
	sets_lock.word = 0;
}

static void count_pages(struct set *set)
{
	for (unsigned int i = 0; i < set->page_count; i++)
		page_count_set(set->pages[i].page);
}

void epoll_count_pages(void)
{
	each(count_pages);
}
