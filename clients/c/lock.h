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
 * go on before it returns. What is held from one call to the next (lock_claim) does not count.
 */
extern _Thread_local volatile uint32_t lock_count;

/* Signals have been put off until the thread holds none (preload/signals.h). */
extern _Thread_local volatile bool lock_puts_off;
void lock_puts_off_no_more(void);

static inline bool lock_is_mine(const struct lock *l)
{
	return (atomic_load_explicit(&l->word, memory_order_relaxed) & ~LOCK_WAITED) == lock_thread();
}

void lock_wait(struct lock *l);
void lock_wake(struct lock *l);

/* Whether its holder has gone with it; then it is free now. Costs a system call. */
bool lock_was_left(struct lock *l);

static inline void lock_count_one(void)
{
	lock_count++;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void lock_count_off(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	lock_count--;
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(lock_puts_off, 0) && lock_count == 0)
		lock_puts_off_no_more();
}

/* What is held from one call to the next: by who wants it if it is free. */
static inline bool lock_claim(struct lock *l)
{
	uint32_t free_word = 0;

	return atomic_compare_exchange_strong_explicit(&l->word, &free_word, lock_thread(), memory_order_acquire, memory_order_relaxed);
}

static inline void lock_leave(struct lock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) & LOCK_WAITED)
		lock_wake(l);
}

/* Wait until it is free for a moment. */
void lock_await(struct lock *l);

static inline void lock_take(struct lock *l)
{
	lock_count_one();
	if (!lock_claim(l))
		lock_wait(l);
}

static inline bool lock_try(struct lock *l)
{
	lock_count_one();
	if (lock_claim(l) || (lock_was_left(l) && lock_claim(l)))
		return true;
	lock_count_off();
	return false;
}

static inline void lock_release(struct lock *l)
{
	lock_leave(l);
	lock_count_off();
}

#endif
