/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls by number, through the C library's syscall. What works on a descriptor is done by the function of that name: a close past the
 * table would leave an entry behind, and the next file with that number be taken for the connection.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "real.h"
#include "syscall.h"
#include "uring.h"

#if defined(__x86_64__) || defined(__aarch64__)

/* A sanitizer's check between two of the registers would change those that are filled. */
__attribute__((no_sanitize("address", "thread"))) static long enter(long number, const long a[6])
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

__attribute__((no_sanitize("address", "thread"))) long kernel_call(long number, const long a[6])
{
	long result = enter(number, a);

	if (result >= 0 || result < -4095)
		return result;
	errno = (int)-result;
	return -1;
}

/* The kernel's masks have 64 signals, the C library's are larger. */
static const sigset_t *mask_of(long mask, sigset_t *set)
{
	if (mask == 0)
		return NULL;
	sigemptyset(set);
	memcpy(set, (const void *)mask, _NSIG / 8);
	return set;
}

/* The second argument of pselect6. */
struct select_mask {
	long mask;
	size_t size;
};

/* Calls that wait for several descriptors. Returns false if the number is none. */
static bool waits(long number, const long a[6], long *result)
{
	const struct select_mask *m;
	sigset_t set;

	switch (number) {
#ifdef SYS_poll
	case SYS_poll: *result = poll((void *)a[0], (nfds_t)a[1], (int)a[2]); return true;
#endif
#ifdef SYS_select
	case SYS_select: *result = select((int)a[0], (void *)a[1], (void *)a[2], (void *)a[3], (void *)a[4]); return true;
#endif
#ifdef SYS_epoll_wait
	case SYS_epoll_wait: *result = epoll_wait((int)a[0], (void *)a[1], (int)a[2], (int)a[3]); return true;
#endif
	case SYS_ppoll: *result = ppoll((void *)a[0], (nfds_t)a[1], (void *)a[2], mask_of(a[3], &set)); return true;
	case SYS_pselect6:
		m = (const struct select_mask *)a[5];
		*result = pselect((int)a[0], (void *)a[1], (void *)a[2], (void *)a[3], (void *)a[4], mask_of(m != NULL ? m->mask : 0, &set));
		return true;
	case SYS_epoll_pwait: *result = epoll_pwait((int)a[0], (void *)a[1], (int)a[2], (int)a[3], mask_of(a[4], &set)); return true;
	case SYS_epoll_pwait2: *result = epoll_pwait2((int)a[0], (void *)a[1], (int)a[2], (void *)a[3], mask_of(a[4], &set)); return true;
	default: return false;
	}
}

/* Which descriptors there are, and what they are. */
static bool describes(long number, const long a[6], long *result)
{
	int fd = (int)a[0];

	switch (number) {
	case SYS_close: *result = close(fd); return true;
	case SYS_close_range: *result = close_range((unsigned int)a[0], (unsigned int)a[1], (int)a[2]); return true;
	case SYS_dup: *result = dup(fd); return true;
#ifdef SYS_dup2
	case SYS_dup2: *result = dup2(fd, (int)a[1]); return true;
#endif
	case SYS_dup3: *result = dup3(fd, (int)a[1], (int)a[2]); return true;
	case SYS_fcntl: *result = fcntl(fd, (int)a[1], a[2]); return true;
	case SYS_ioctl: *result = ioctl(fd, (unsigned long)a[1], a[2]); return true;
	case SYS_connect: *result = connect(fd, (void *)a[1], (socklen_t)a[2]); return true;
	case SYS_listen: *result = listen(fd, (int)a[1]); return true;
	case SYS_accept: *result = accept(fd, (void *)a[1], (void *)a[2]); return true;
	case SYS_accept4: *result = accept4(fd, (void *)a[1], (void *)a[2], (int)a[3]); return true;
	case SYS_shutdown: *result = shutdown(fd, (int)a[1]); return true;
	case SYS_getsockopt: *result = getsockopt(fd, (int)a[1], (int)a[2], (void *)a[3], (void *)a[4]); return true;
	case SYS_setsockopt: *result = setsockopt(fd, (int)a[1], (int)a[2], (void *)a[3], (socklen_t)a[4]); return true;
	case SYS_epoll_create1: *result = epoll_create1(fd); return true;
	case SYS_epoll_ctl: *result = epoll_ctl(fd, (int)a[1], (int)a[2], (void *)a[3]); return true;
	case SYS_execve: *result = execve((const char *)a[0], (char *const *)a[1], (char *const *)a[2]); return true;
	default: return false;
	}
}

/* Bytes. preadv2 and pwritev2 have a word for the upper half of the offset, which is empty on these machines. */
static bool moves(long number, const long a[6], long *result)
{
	int fd = (int)a[0];
	void *b = (void *)a[1];

	switch (number) {
	case SYS_read: *result = read(fd, b, (size_t)a[2]); return true;
	case SYS_write: *result = write(fd, b, (size_t)a[2]); return true;
	case SYS_readv: *result = readv(fd, b, (int)a[2]); return true;
	case SYS_writev: *result = writev(fd, b, (int)a[2]); return true;
	case SYS_preadv2: *result = preadv2(fd, b, (int)a[2], a[3], (int)a[5]); return true;
	case SYS_pwritev2: *result = pwritev2(fd, b, (int)a[2], a[3], (int)a[5]); return true;
	case SYS_recvfrom: *result = recvfrom(fd, b, (size_t)a[2], (int)a[3], (void *)a[4], (void *)a[5]); return true;
	case SYS_sendto: *result = sendto(fd, b, (size_t)a[2], (int)a[3], (void *)a[4], (socklen_t)a[5]); return true;
	case SYS_recvmsg: *result = recvmsg(fd, b, (int)a[2]); return true;
	case SYS_sendmsg: *result = sendmsg(fd, b, (int)a[2]); return true;
	case SYS_recvmmsg: *result = recvmmsg(fd, b, (unsigned int)a[2], (int)a[3], (void *)a[4]); return true;
	case SYS_sendmmsg: *result = sendmmsg(fd, b, (unsigned int)a[2], (int)a[3]); return true;
	case SYS_sendfile: *result = sendfile(fd, (int)a[1], (void *)a[2], (size_t)a[3]); return true;
	case SYS_splice: *result = splice(fd, (void *)a[1], (int)a[2], (void *)a[3], (size_t)a[4], (unsigned int)a[5]); return true;
	default: return false;
	}
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
	if (number == SYS_io_uring_setup && uring_refused()) {
		errno = ENOSYS;
		return -1;
	}
	if (real_found() && (moves(number, a, &result) || describes(number, a, &result) || waits(number, a, &result)))
		return result;
	return kernel_call(number, a);
}

#else

long kernel_call(long number, const long a[6])
{
	return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#endif
