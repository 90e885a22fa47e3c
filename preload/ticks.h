/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor's own clock. Asking the kernel's takes pages of the C library, of the vdso and of its data, all of which have to be found anew
 * after each switch between processes.
 */
#ifndef PRELOAD_TICKS_H
#define PRELOAD_TICKS_H

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

/*
 * Two milliseconds from now: while ticks() is below that, what the kernel's clock has said still holds. How many ticks these are is seen by
 * what has gone by since an earlier call of this thread's; 0: that cannot be told.
 */
uint64_t ticks_until(int64_t now);

#endif
