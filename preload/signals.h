/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's signal handlers. The kernel runs one that comes in the middle of a system call when that ends; so one that comes while its thread
 * holds locks of the library's, in the middle of a copy say, runs when it holds none. Else what it calls on the same connection would wait for
 * what goes on only when it has returned.
 *
 * The library is in front of the calls that set handlers, and sets its own, which calls the program's: at once, or it queues the signal anew, as it
 * was, and blocks all of them until the thread has let go (lock_puts_off_no_more). Stacks, masks and SA_RESTART are the kernel's, as ever.
 *
 * A handler that the kernel is told of by a system call of the program's own is not seen. It runs at once, and reads and writes that would wait
 * for its own thread fail with EDEADLK (io_ready).
 */
#ifndef PRELOAD_SIGNALS_H
#define PRELOAD_SIGNALS_H

#include <stdbool.h>
#include <stdint.h>

/* A signal that tells a thread of its own doing cannot wait. */
bool signal_is_fault(int n);

/*
 * How many handlers have run in this thread, and how many of those without SA_RESTART. The kernel ends only its own sleep for one, but a call of the
 * library's looks around, and spins, before it sleeps; so what waits notes at its beginning how many there were.
 */
struct signals {
	uint32_t all, ending;
};
extern _Thread_local volatile struct signals signals_seen;

static inline struct signals signals_now(void)
{
	return (struct signals){ signals_seen.all, signals_seen.ending };
}

static inline bool signals_came(struct signals since)
{
	return signals_seen.all != since.all;
}

/*
 * Whether a wait is to end with EINTR: before a sleep, with err 0, or after one, with what that gave. A handler with SA_RESTART resumes the kernel's
 * calls, but not those with a limit, nor the timed ones that these waits are made of. Which one it was is not known of those that are not seen; one of them
 * without SA_RESTART decides for all.
 */
bool signals_end(struct signals since, bool limited, int err);

#endif
