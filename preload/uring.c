/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring: the kernel moves bytes between rings and descriptors, past every library. What is set up through the C library or a shared
 * liburing is refused, as a kernel without io_uring does, for which programs are prepared.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>

#include "debug.h"
#include "real.h"
#include "uring.h"

struct io_uring;
struct io_uring_params;

/* Where the library is switched off, it is the program's. */
bool uring_refused(void)
{
	if (environment_off())
		return false;
	debug("io_uring is refused: what it moves cannot go through shared buffers (ISMFS_MOUNT=off allows it)");
	return true;
}

EXPORT int io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	return real()->io_uring_queue_init == NULL || uring_refused() ? -ENOSYS : real()->io_uring_queue_init(entries, ring, flags);
}

EXPORT int io_uring_queue_init_params(unsigned int entries, struct io_uring *ring, struct io_uring_params *p)
{
	return real()->io_uring_queue_init_params == NULL || uring_refused() ? -ENOSYS : real()->io_uring_queue_init_params(entries, ring, p);
}

EXPORT int io_uring_setup(unsigned int entries, struct io_uring_params *p)
{
	return real()->io_uring_setup == NULL || uring_refused() ? -ENOSYS : real()->io_uring_setup(entries, p);
}
