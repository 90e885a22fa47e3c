/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long to look before a sleep. With the peer on another CPU an answer is there in less time than a sleep and a wake-up take; with the
 * peer on the same one every round is lost, and nobody can tell beforehand. So it is learned: a sleep that was over soon should have been a
 * spin; spins that failed all the same, several times in a row, mean that the peer cannot run meanwhile, and then there is none for a while.
 * Hints only: several threads may change them at once.
 *
 * Where both processes are bound to one CPU a side gives it away instead (sched_yield): that costs half of a sleep and a wake-up, and lets
 * the peer work until it is through. If a third program has the CPU then, all of this process's connections sleep for a while: a program
 * that sleeps gets the CPU at once when its news have come, one that has used up its share waits behind the others.
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

/* How often to give the CPU away now, and that it was in vain. */
unsigned int spin_yields(struct spinning *s, int64_t now);
void spin_missed(struct spinning *s);

/* The CPU was gone from one moment to another. Returns whether a third program must have had it. */
bool spin_stolen(int64_t began, int64_t now);

/* 1 + the number of the one CPU that the calling thread may use; 0: there are several. Looked up once a second. */
uint32_t spin_place(int64_t now);

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
