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

void lock_wait(struct lock *l);
void lock_wake(struct lock *l);

static inline void lock_take(struct lock *l)
{
	uint32_t free_word = 0;

	if (!atomic_compare_exchange_strong_explicit(&l->word, &free_word, lock_thread(), memory_order_acquire, memory_order_relaxed))
		lock_wait(l);
}

static inline bool lock_try(struct lock *l)
{
	uint32_t free_word = 0;

	return atomic_compare_exchange_strong_explicit(&l->word, &free_word, lock_thread(), memory_order_acquire, memory_order_relaxed);
}

static inline void lock_release(struct lock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) & LOCK_WAITED)
		lock_wake(l);
}

#endif
