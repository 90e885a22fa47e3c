/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lock that several processes can share and that outlives its holder: a word with the holder's thread id. Who waits too long for a
 * thread that is gone takes it over; what it guards must bear that (see stream.h).
 */
#ifndef ISMFS_LOCK_H
#define ISMFS_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lock {
	_Atomic uint32_t word; /* 0 free, else the holder's thread id, with LOCK_WAITED if somebody sleeps */
};

#define LOCK_WAITED UINT32_C(0x80000000)

/* The calling thread's id, kept. A child of fork calls lock_forget_thread first. */
uint32_t lock_thread(void);
void lock_forget_thread(void);

/*
 * How many the calling thread holds, or is about to take. In a signal's handler: whether it has come in the middle of something that will not
 * go on before it returns. What lock_try has taken does not count.
 */
extern _Thread_local volatile uint32_t lock_count;

static inline bool lock_is_mine(const struct lock *l)
{
	return (atomic_load_explicit(&l->word, memory_order_relaxed) & ~LOCK_WAITED) == lock_thread();
}

void lock_wait(struct lock *l);
void lock_wake(struct lock *l);

static inline void lock_take(struct lock *l)
{
	uint32_t free_word = 0;

	lock_count++;
	atomic_signal_fence(memory_order_seq_cst);
	if (!atomic_compare_exchange_strong_explicit(&l->word, &free_word, lock_thread(), memory_order_acquire, memory_order_relaxed))
		lock_wait(l);
}

static inline bool lock_try(struct lock *l)
{
	uint32_t free_word = 0;

	return atomic_compare_exchange_strong_explicit(&l->word, &free_word, lock_thread(), memory_order_acquire, memory_order_relaxed);
}

/* What lock_try has taken. */
static inline void lock_leave(struct lock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) & LOCK_WAITED)
		lock_wake(l);
}

static inline void lock_release(struct lock *l)
{
	lock_leave(l);
	atomic_signal_fence(memory_order_seq_cst);
	lock_count--;
}

#endif
