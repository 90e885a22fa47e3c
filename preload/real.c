/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "real.h"
#include "syscall.h"

_Alignas(64) struct real real_functions;

/* Older C libraries lack some; programs that use these do not run there, but the library must not crash on asking. */
static int no_close_range(unsigned int first, unsigned int last, int flags)
{
	return (int)kernel_call(SYS_close_range, (long[6]){ first, last, flags });
}

/* By the call that it does have, where a thread can be cancelled; a part of a millisecond counts as a whole one. */
static int no_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *timeout, const sigset_t *mask)
{
	int ms = -1;

	if (timeout != NULL)
		ms = timeout->tv_sec >= INT_MAX / 1000 ? INT_MAX : (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
	return real_functions.epoll_pwait(fd, events, n, ms, mask);
}

static int no_execveat(int fd, const char *path, char *const arguments[], char *const environment[], int flags)
{
	return (int)kernel_call(SYS_execveat, (long[6]){ fd, (long)path, (long)arguments, (long)environment, flags });
}

/* dlsym returns an object pointer for a function: they have one size wherever there is dlsym. */
#define FIND(type, name, arguments)                        \
	found = dlsym(RTLD_NEXT, #name);                   \
	memcpy(&real_functions.name, &found, sizeof(found));

void real_find(void)
{
	int saved = errno;
	void *found;

	REAL_FUNCTIONS(FIND)
	if (real_functions.close_range == NULL)
		real_functions.close_range = no_close_range;
	if (real_functions.epoll_pwait2 == NULL)
		real_functions.epoll_pwait2 = no_epoll_pwait2;
	if (real_functions.execveat == NULL)
		real_functions.execveat = no_execveat;
	real_functions.found = true;
	errno = saved;
}

/* glibc has pthread_atfork only to be linked into programs, as a call of another one; musl has no other one. */
void real_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void))
{
	extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *) __attribute__((weak));
	extern void *__dso_handle __attribute__((visibility("hidden")));
	int (*at_fork)(void (*)(void), void (*)(void), void (*)(void));
	void *found;

	if (__register_atfork != NULL) {
		(void)__register_atfork(before, in_parent, in_child, &__dso_handle);
		return;
	}
	found = dlsym(RTLD_DEFAULT, "pthread_atfork");
	memcpy(&at_fork, &found, sizeof(at_fork));
	if (at_fork != NULL)
		(void)at_fork(before, in_parent, in_child);
}
