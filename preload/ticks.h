/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor's own clock. Asking the kernel's takes pages of the C library, of the vdso and of its data, all of which have to be found anew
 * after each switch between processes.
 */
#ifndef PRELOAD_TICKS_H
#define PRELOAD_TICKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Of no unit in particular; always 0 where there is no such clock. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t n;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(n));
	return n;
#else
	return 0;
#endif
}

/* Some time: from a tick on, for that many; 0: none. */
struct span {
	uint64_t from, ticks;
};

/*
 * Two milliseconds, in which what the kernel's clock has just said still holds, from the tick on that was asked for before it. How many ticks
 * these are is seen by what has gone by since an earlier call of this thread's; none, if that cannot be told.
 */
struct span ticks_span(uint64_t before, int64_t now);

/* What threads share of one: each word is true of some time of late, so that those of two fit together. */
struct shared_span {
	_Atomic uint64_t from, ticks;
};

/* Not before it either: the clock of another host goes back, if the machine is moved. */
static inline bool span_holds(const struct shared_span *s)
{
	uint64_t n = atomic_load_explicit(&s->ticks, memory_order_acquire);

	return ticks() - atomic_load_explicit(&s->from, memory_order_relaxed) < n;
}

static inline void span_put(struct shared_span *s, struct span is)
{
	atomic_store_explicit(&s->from, is.from, memory_order_relaxed);
	atomic_store(&s->ticks, is.ticks);
}

#endif
