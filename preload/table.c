/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "real.h"
#include "sock.h"
#include "table.h"

_Atomic uintptr_t table[TABLE_SIZE];
static _Atomic int end;

int table_end(void)
{
	return atomic_load(&end);
}

/* Not of one that is gone: its object may be another's already. */
static bool hold(struct sock *s)
{
	uint32_t refs = atomic_load_explicit(&s->refs, memory_order_relaxed);

	while (refs != 0)
		if (atomic_compare_exchange_weak_explicit(&s->refs, &refs, refs + 1, memory_order_acquire, memory_order_relaxed))
			return true;
	return false;
}

/* The entry is looked at again after the reference was taken: only then it was the table's when it became ours. */
struct sock *table_get(int fd, bool any)
{
	uintptr_t entry;

	if ((unsigned int)fd >= TABLE_SIZE)
		return NULL;
	for (;;) {
		struct sock *s;

		entry = atomic_load_explicit(&table[fd], memory_order_acquire);
		if (entry == 0 || ((entry & TABLE_PLAIN) && !any))
			return NULL;
		s = (struct sock *)(entry & ~(uintptr_t)TABLE_PLAIN);
		if (!hold(s))
			continue;
		if (atomic_load_explicit(&table[fd], memory_order_acquire) == entry)
			return s;
		sock_put(s);
	}
}

void table_set(int fd, struct sock *s, bool plain)
{
	int last = atomic_load(&end);

	while (last <= fd && !atomic_compare_exchange_weak(&end, &last, fd + 1))
		;
	atomic_store_explicit(&table[fd], (uintptr_t)s | (plain ? TABLE_PLAIN : 0), memory_order_release);
}

struct sock *table_take(int fd)
{
	if ((unsigned int)fd >= TABLE_SIZE)
		return NULL;
	return (struct sock *)(atomic_exchange(&table[fd], 0) & ~(uintptr_t)TABLE_PLAIN);
}

/* ---- hidden descriptors ---- */

static _Atomic uint64_t hidden[TABLE_SIZE / 64];
static int lowest = 512; /* where the library's own begin */
static struct rlimit shown;
static bool raised;
static rlim_t raised_to;

/* The hard limit is the kernel's; the soft one is raised to it, and the program is shown its own. */
void hidden_setup(void)
{
	struct rlimit limit;

	if (real()->getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	shown = limit;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		raised = real()->setrlimit(RLIMIT_NOFILE, &limit) == 0;
		raised_to = limit.rlim_cur;
	}
	if (raised && shown.rlim_cur < TABLE_SIZE / 2)
		lowest = (int)shown.rlim_cur;
	else
		lowest = shown.rlim_cur / 2 < TABLE_SIZE / 2 ? (int)shown.rlim_cur / 2 : TABLE_SIZE / 2;
}

/* The soft limit goes from what it was left at to another one; not if somebody else has changed it since. */
static void move_limit(rlim_t from, rlim_t to)
{
	struct rlimit limit;

	if (!raised || real()->getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur != from)
		return;
	limit.rlim_cur = to;
	(void)real()->setrlimit(RLIMIT_NOFILE, &limit);
}

void hidden_before_exec(void)
{
	move_limit(raised_to, shown.rlim_cur);
}

void hidden_after_failed_exec(void)
{
	move_limit(shown.rlim_cur, raised_to);
}

static void hide(int fd)
{
	atomic_fetch_or(&hidden[fd / 64], UINT64_C(1) << fd % 64);
}

int hidden_copy(int fd)
{
	int high = real()->fcntl(fd, F_DUPFD_CLOEXEC, lowest);

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
	if (fd < TABLE_SIZE)
		atomic_fetch_and(&hidden[fd / 64], ~(UINT64_C(1) << fd % 64));
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

/* ---- the program's limit; a sanitizer's runtime asks for it before anything can run ---- */

#ifndef SANITIZED

EXPORT int getrlimit(__rlimit_resource_t resource, struct rlimit *limit)
{
	if (resource == RLIMIT_NOFILE && raised) {
		*limit = shown;
		return 0;
	}
	return real()->getrlimit((int)resource, limit);
}

EXPORT int getrlimit64(__rlimit_resource_t resource, struct rlimit64 *limit)
{
	return getrlimit(resource, (struct rlimit *)limit);
}

/*
 * A program that lowers its own limit lowers what it is shown; one that raises it has it already. A child of vfork has a limit of its
 * own, but its parent's memory.
 */
EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	struct rlimit now = *limit;

	if (resource != RLIMIT_NOFILE || !raised || !process_is_ours())
		return real()->setrlimit((int)resource, limit);
	if (limit->rlim_cur > limit->rlim_max) {
		errno = EINVAL;
		return -1;
	}
	now.rlim_cur = now.rlim_max;
	if (real()->setrlimit(RLIMIT_NOFILE, &now) != 0)
		return -1;
	raised_to = now.rlim_cur;
	shown = *limit;
	return 0;
}

EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
	return setrlimit(resource, (const struct rlimit *)limit);
}

EXPORT int prlimit(pid_t pid, __rlimit_resource_t resource, const struct rlimit *limit, struct rlimit *before)
{
	struct rlimit was = shown;

	if (resource != RLIMIT_NOFILE || !raised || !process_is_ours() || (pid != 0 && pid != getpid()))
		return real()->prlimit(pid, (int)resource, limit, before);
	if (limit != NULL && setrlimit(resource, limit) != 0)
		return -1;
	if (before != NULL)
		*before = was;
	return 0;
}

EXPORT int prlimit64(pid_t pid, __rlimit_resource_t resource, const struct rlimit64 *limit, struct rlimit64 *before)
{
	return prlimit(pid, resource, (const struct rlimit *)limit, (struct rlimit *)before);
}

#endif
