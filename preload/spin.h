/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long to look before a sleep. With the peer on another CPU an answer is there in less time than a sleep and a wake-up take; with the
 * peer on the same one every round is lost, and nobody can tell beforehand. So it is learned: a sleep that was over soon should have been a
 * spin; spins that failed all the same, several times in a row, mean that the peer cannot run meanwhile, and then there is none for a while.
 * Hints only: several threads may change them at once.
 */
#ifndef PRELOAD_SPIN_H
#define PRELOAD_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct spinning {
	_Atomic unsigned int rounds; /* of the next spin */
	_Atomic unsigned int misses; /* in a row */
	_Atomic unsigned int rest;   /* waits without a spin, from now on */
	_Atomic unsigned int penalty; /* of the next rest */
};

/* The rounds to spin now, 0 for none. */
unsigned int spin_rounds(struct spinning *s);

/* A spin found something; a sleep of so many nanoseconds followed one that did not, or none. */
void spin_met(struct spinning *s);
void spin_slept(struct spinning *s, int64_t ns);

/* One round's pause. */
static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Whether this process may spin at all: there are two CPUs, and CPU time is not rationed. Asked once. */
void spin_prepare(void);

#endif
