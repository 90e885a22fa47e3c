/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring: the kernel moves bytes between rings and descriptors, past every library. What is set up through the C library or a shared
 * liburing is refused, as a kernel without io_uring does, for which programs are prepared.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "debug.h"
#include "device.h"
#include "real.h"

struct io_uring;
struct io_uring_params;

/* Where the library is switched off, it is the program's. */
static bool refuse(void)
{
	if (environment_off())
		return false;
	debug("io_uring is refused: what it moves cannot go through shared buffers (ISMFS_MOUNT=off allows it)");
	return true;
}

#if defined(__x86_64__) || defined(__aarch64__)

/*
 * The kernel itself: allocators use syscall before anything can be looked up. A sanitizer's check between two of the registers would change
 * those that are filled.
 */
__attribute__((no_sanitize("address", "thread"))) static long call_kernel(long number, const long a[6])
{
#ifdef __x86_64__
	register long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
#else
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a[0], x1 __asm__("x1") = a[1], x2 __asm__("x2") = a[2];
	register long x3 __asm__("x3") = a[3], x4 __asm__("x4") = a[4], x5 __asm__("x5") = a[5];

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#endif
}

/* A call with fewer arguments leaves the rest as they are. */
__attribute__((no_sanitize("address", "thread"))) EXPORT long syscall(long number, ...)
{
	va_list list;
	long a[6], result;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_io_uring_setup && refuse()) {
		errno = ENOSYS;
		return -1;
	}
	result = call_kernel(number, a);
	if (result >= 0 || result < -4095)
		return result;
	errno = (int)-result;
	return -1;
}

#endif

EXPORT int io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	return real()->io_uring_queue_init == NULL || refuse() ? -ENOSYS : real()->io_uring_queue_init(entries, ring, flags);
}

EXPORT int io_uring_queue_init_params(unsigned int entries, struct io_uring *ring, struct io_uring_params *p)
{
	return real()->io_uring_queue_init_params == NULL || refuse() ? -ENOSYS : real()->io_uring_queue_init_params(entries, ring, p);
}

EXPORT int io_uring_setup(unsigned int entries, struct io_uring_params *p)
{
	return real()->io_uring_setup == NULL || refuse() ? -ENOSYS : real()->io_uring_setup(entries, p);
}
