/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the programs with a sanitizer. The sanitizers' allocators (gcc 12's) take no care of fork: in a child a lock of theirs can be one that
 * another thread of the parent's has had, and the child waits for ever. So who allocates holds a lock that fork takes, after all others, since
 * they are held while something is allocated. ThreadSanitizer does not see it: it is to order nothing.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stddef.h>

#define UNSEEN __attribute__((noinline, no_sanitize_thread))

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t n);
void __real_free(void *old);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t n);
void __wrap_free(void *old);

static int busy;
static _Thread_local int depth; /* in a handler, too */

UNSEEN static void take(void)
{
	if (depth++ == 0)
		while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE) != 0)
			sched_yield();
}

UNSEEN static void release(void)
{
	if (--depth == 0)
		__atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

void *__wrap_malloc(size_t n)
{
	void *made;

	take();
	made = __real_malloc(n);
	release();
	return made;
}

void *__wrap_calloc(size_t n, size_t size)
{
	void *made;

	take();
	made = __real_calloc(n, size);
	release();
	return made;
}

void *__wrap_realloc(void *old, size_t n)
{
	void *made;

	take();
	made = __real_realloc(old, n);
	release();
	return made;
}

void __wrap_free(void *old)
{
	take();
	__real_free(old);
	release();
}

/* Handlers that are registered first run last before a fork, and first after it. */
__attribute__((constructor(101))) static void set_up(void)
{
	pthread_atfork(take, release, release);
}
