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

/* A signal that tells a thread of its own doing cannot wait. */
bool signal_is_fault(int n);

#endif
