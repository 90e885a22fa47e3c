/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lock.h"

static _Thread_local uint32_t thread_id;
_Thread_local volatile uint32_t lock_count;
_Thread_local volatile bool lock_puts_off;

uint32_t lock_thread(void)
{
	if (thread_id == 0)
		thread_id = (uint32_t)syscall(SYS_gettid);
	return thread_id;
}

void lock_forget_thread(void)
{
	thread_id = 0;
}

static bool is_gone(uint32_t thread)
{
	return syscall(SYS_tkill, (int)thread, 0) != 0 && errno == ESRCH;
}

/* How long a holder is waited for before somebody looks whether it lives. */
static const struct timespec patience = { .tv_sec = 0, .tv_nsec = 50000000 };

bool lock_was_left(struct lock *l)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
	int saved = errno;
	bool left = word == 0 || (is_gone(word & ~LOCK_WAITED) && atomic_compare_exchange_strong_explicit(&l->word, &word, 0, memory_order_acquire,
													  memory_order_relaxed));

	errno = saved;
	if (left && (word & LOCK_WAITED))
		lock_wake(l);
	return left;
}

/* Sleep while somebody holds it. 0: it is free. Else whether that one has gone, and as what the word was left. */
static uint32_t sleep_on(struct lock *l, bool *left)
{
	uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);

	*left = false;
	if (word == 0)
		return 0;
	if (!(word & LOCK_WAITED) &&
	    !atomic_compare_exchange_strong_explicit(&l->word, &word, word | LOCK_WAITED, memory_order_relaxed, memory_order_relaxed))
		return word;
	word |= LOCK_WAITED;
	*left = syscall(SYS_futex, &l->word, FUTEX_WAIT, word, &patience, NULL, 0) != 0 && errno == ETIMEDOUT && is_gone(word & ~LOCK_WAITED);
	return word;
}

/* Whoever takes it here cannot tell whether others wait, and says that they do. */
void lock_wait(struct lock *l)
{
	int saved = errno;

	for (;;) {
		bool left;
		uint32_t word = sleep_on(l, &left);

		if ((word == 0 || left) && atomic_compare_exchange_strong_explicit(&l->word, &word, lock_thread() | LOCK_WAITED,
										   memory_order_acquire, memory_order_relaxed))
			break;
	}
	errno = saved;
}

void lock_await(struct lock *l)
{
	int saved = errno;
	bool left;

	while (sleep_on(l, &left) != 0)
		if (left)
			(void)lock_was_left(l);
	lock_wake(l); /* another one that waits so */
	errno = saved;
}

void lock_wake(struct lock *l)
{
	int saved = errno;

	syscall(SYS_futex, &l->word, FUTEX_WAKE, 1, NULL, NULL, 0);
	errno = saved;
}
