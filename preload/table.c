/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "real.h"
#include "sock.h"
#include "table.h"

struct entry table[TABLE_SIZE];
HOT_DATA _Atomic int table_reach;

int table_end(void)
{
	return atomic_load(&table_reach);
}

/* Not of one that is gone: its object may be another's already. */
static HOT bool hold(struct sock *s)
{
	uint32_t refs = atomic_load_explicit(&s->refs, memory_order_relaxed);

	while (refs != 0)
		if (atomic_compare_exchange_weak_explicit(&s->refs, &refs, refs + 1, memory_order_acquire, memory_order_relaxed))
			return true;
	return false;
}

/* The entry is looked at again after the reference was taken: only then it was the table's when it became ours. */
HOT struct sock *table_get(int fd, bool any)
{
	uintptr_t entry;

	if ((unsigned int)fd >= TABLE_SIZE)
		return NULL;
	for (;;) {
		struct sock *s;

		entry = table_entry(fd);
		if (is_note(entry) || ((entry & TABLE_PLAIN) && !any))
			return NULL;
		s = (struct sock *)(entry & ~(uintptr_t)TABLE_PLAIN);
		if (!hold(s))
			continue;
		if (table_entry(fd) == entry)
			return s;
		sock_put(s);
	}
}

void table_reach_to(int fd)
{
	int last = atomic_load(&table_reach);

	while (last <= fd && !atomic_compare_exchange_weak(&table_reach, &last, fd + 1))
		;
}

uintptr_t table_set(int fd, struct sock *s, bool plain)
{
	if (fd >= atomic_load_explicit(&table_reach, memory_order_relaxed))
		table_reach_to(fd);
	return atomic_exchange(&table[fd].sock, (uintptr_t)s | (plain ? TABLE_PLAIN : 0));
}

void table_more(int fd)
{
	if (!atomic_load_explicit(&table[fd].more, memory_order_relaxed))
		atomic_store_explicit(&table[fd].more, true, memory_order_relaxed);
}

struct sock *table_take(int fd)
{
	uintptr_t entry;

	if ((unsigned int)fd >= TABLE_SIZE)
		return NULL;
	entry = atomic_exchange(&table[fd].sock, NOTE_NONE);
	return is_note(entry) ? NULL : (struct sock *)(entry & ~(uintptr_t)TABLE_PLAIN);
}

/* ---- hidden descriptors ---- */

static _Atomic uint64_t hidden[TABLE_SIZE / 64];
static _Atomic unsigned int hidden_count;
struct lock hidden_lock;

static rlim_t most_of(const struct rlimit *limit)
{
	return limit->rlim_max < TABLE_SIZE ? limit->rlim_max : TABLE_SIZE;
}

/*
 * Where the library's own begin: above the program's soft limit, so that they take nothing from it, and select's sets have room for all that
 * it gets; where the hard limit leaves little there, in the upper half below that.
 */
static rlim_t lowest(const struct rlimit *limit)
{
	rlim_t most = most_of(limit);

	return limit->rlim_cur < most / 2 ? limit->rlim_cur : most / 2;
}

bool hidden_has_room(void)
{
	enum { FOR_A_CONNECTION = 8 };
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return false;
	return atomic_load(&hidden_count) + FOR_A_CONNECTION <= most_of(&limit) - lowest(&limit);
}

/* The kernel gives numbers up to the soft limit alone. It is the program's, so it is raised for this one call. */
static int copy_up(int fd)
{
	struct rlimit own, wide, was;
	int high;

	if (getrlimit(RLIMIT_NOFILE, &own) != 0)
		return -1;
	if (lowest(&own) < own.rlim_cur)
		return real()->fcntl(fd, F_DUPFD_CLOEXEC, (int)lowest(&own));
	wide = (struct rlimit){ own.rlim_max, own.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &wide) != 0)
		return -1;
	high = real()->fcntl(fd, F_DUPFD_CLOEXEC, (int)own.rlim_cur);
	if (prlimit(0, RLIMIT_NOFILE, &own, &was) == 0 && (was.rlim_cur != wide.rlim_cur || was.rlim_max != wide.rlim_max))
		(void)setrlimit(RLIMIT_NOFILE, &was); /* the program has set one meanwhile */
	return high;
}

static void hide(int fd)
{
	atomic_fetch_or(&hidden[fd / 64], UINT64_C(1) << fd % 64);
	table_more(fd);
	atomic_fetch_add(&hidden_count, 1);
}

int hidden_copy(int fd)
{
	int high;

	lock_take(&hidden_lock);
	high = copy_up(fd);
	lock_release(&hidden_lock);
	if (high >= TABLE_SIZE) {
		real()->close(high);
		return -1;
	}
	if (high >= 0)
		hide(high);
	return high;
}

int hidden_take(int fd)
{
	int high = fd >= 0 ? hidden_copy(fd) : -1;

	if (high >= 0) {
		real()->close(fd);
		return high;
	}
	if (fd >= 0 && fd < TABLE_SIZE)
		hide(fd);
	return fd;
}

bool hidden_has(int fd)
{
	return (unsigned int)fd < TABLE_SIZE && (atomic_load_explicit(&hidden[fd / 64], memory_order_relaxed) >> fd % 64 & 1);
}

void hidden_close(int fd)
{
	if (fd < 0)
		return;
	if (hidden_has(fd)) {
		atomic_fetch_and(&hidden[fd / 64], ~(UINT64_C(1) << fd % 64));
		atomic_fetch_sub(&hidden_count, 1);
		table[fd].more = false;
	}
	real()->close(fd);
}

void hidden_drain(int fd)
{
	char bytes[4096];

	(void)!real()->read(fd, bytes, sizeof(bytes));
}

int hidden_next(unsigned int from)
{
	for (unsigned int fd = from; fd < TABLE_SIZE; fd++) {
		uint64_t rest = atomic_load_explicit(&hidden[fd / 64], memory_order_relaxed) >> fd % 64;

		if (rest != 0)
			return (int)fd + __builtin_ctzll(rest);
		fd |= 63;
	}
	return -1;
}
