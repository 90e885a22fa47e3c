/* SPDX-License-Identifier: Apache-2.0 */
/* Time and futexes. */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

HOT int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

int64_t deadline_in(int timeout_ms)
{
	if (timeout_ms < 0)
		return FOREVER;
	return timeout_ms == 0 ? 0 : now_ns() + timeout_ms * NS_PER_MS;
}

struct timespec time_left(int64_t deadline)
{
	int64_t left = deadline - now_ns();
	struct timespec t;

	if (left < 0)
		left = 0;
	t.tv_sec = left / NS_PER_S;
	t.tv_nsec = left % NS_PER_S;
	return t;
}

void futex_sleep(_Atomic uint32_t *word, uint32_t value, int64_t deadline, bool shared)
{
	struct timespec left = time_left(deadline);

	syscall(SYS_futex, word, shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, value, &left, NULL, 0);
}

void futex_wake_all(_Atomic uint32_t *word, bool shared)
{
	syscall(SYS_futex, word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
