/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes. A child of fork has its parent's connections: each counts who has it, and only the last one closes. A child of vfork has its
 * parent's memory and must not touch what is there. An exec ends the library's hold on everything.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "arena.h"
#include "debug.h"
#include "device.h"
#include "epoll.h"
#include "link.h"
#include "real.h"
#include "sock.h"
#include "table.h"
#include "wait.h"

static pid_t process;
static bool is_child; /* of a fork, with connections that its parent had */

bool process_is_ours(void)
{
	return getpid() == process;
}

/* Once for each socket, however many descriptors it has. */
static void each_socket(void (*f)(struct sock *s, int fd))
{
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_get(fd, true) : NULL;

		if (s == NULL)
			continue;
		f(s, fd);
		sock_put(s);
	}
}

static void hold(struct sock *s, int fd)
{
	(void)fd;
	if (!s->counted)
		atomic_fetch_add(&s->shared->holders, 1);
	s->counted = true;
}

static void uncount(struct sock *s, int fd)
{
	(void)fd;
	s->counted = false;
}

/* ---- fork ---- */

static void before_fork(void)
{
	lock_take(&link_lock);
	lock_take(&device_lock);
	each_socket(hold);
}

static void in_parent(void)
{
	each_socket(uncount);
	lock_release(&device_lock);
	lock_release(&link_lock);
}

static void in_child(void)
{
	lock_forget_thread();
	process = getpid();
	is_child = true;
	each_socket(uncount);
	device_lock.word = link_lock.word = 0;
	device_forked();
	link_forked();
	arena_forked();
	epoll_forked();
}

/* ---- exec: a program that cannot go on with what its parent's connections were gives them up ---- */

static bool before_exec(void)
{
	if (!is_child || !process_is_ours())
		return false;
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_get(fd, true) : NULL;

		if (s == NULL)
			continue;
		if (!s->counted && atomic_load(&s->shared->holders) > 1) {
			atomic_fetch_sub(&s->shared->holders, 1);
			s->counted = true;
		}
		sock_put(s);
	}
	return true;
}

static void after_failed_exec(bool given_up)
{
	int saved = errno;

	for (int fd = 0, end = given_up ? table_end() : 0; fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_get(fd, true) : NULL;

		if (s == NULL)
			continue;
		if (s->counted)
			atomic_fetch_add(&s->shared->holders, 1);
		s->counted = false;
		sock_put(s);
	}
	errno = saved;
}

EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
	bool given_up = before_exec();
	int result = real()->execve(path, arguments, environment);

	after_failed_exec(given_up);
	return result;
}

EXPORT int execv(const char *path, char *const arguments[])
{
	return execve(path, arguments, environ);
}

EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
	bool given_up = before_exec();
	int result = real()->execvpe(file, arguments, environment);

	after_failed_exec(given_up);
	return result;
}

EXPORT int execvp(const char *file, char *const arguments[])
{
	return execvpe(file, arguments, environ);
}

EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
	bool given_up = before_exec();
	int result = real()->fexecve(fd, arguments, environment);

	after_failed_exec(given_up);
	return result;
}

/* The list forms: arguments up to NULL, and for execle the environment behind. */
enum { MOST_ARGUMENTS = 4096 };

#define COLLECT(first)                                                                         \
	char *arguments[MOST_ARGUMENTS];                                                       \
	va_list list;                                                                          \
	int n = 0;                                                                             \
                                                                                               \
	va_start(list, first);                                                                 \
	arguments[0] = (char *)(uintptr_t)first;                                               \
	while (arguments[n] != NULL && n < MOST_ARGUMENTS - 1)                                 \
		arguments[++n] = va_arg(list, char *);

EXPORT int execl(const char *path, const char *first, ...)
{
	COLLECT(first)
	va_end(list);
	return execve(path, arguments, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
	COLLECT(first)
	va_end(list);
	return execvpe(file, arguments, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
	char *const *environment;

	COLLECT(first)
	environment = va_arg(list, char *const *);
	va_end(list);
	return execve(path, arguments, environment);
}

/* ---- exit ---- */

static void close_all(void)
{
	if (process == 0 || !process_is_ours())
		return;
	for (int fd = 0, end = table_end(); fd < end; fd++)
		if (table_has(fd))
			sock_drop(fd);
}

EXPORT void _exit(int status)
{
	close_all();
	real()->_exit(status);
	__builtin_unreachable();
}

EXPORT void _Exit(int status)
{
	_exit(status);
}

__attribute__((destructor)) static void at_exit(void)
{
	close_all();
}

__attribute__((constructor)) static void set_up(void)
{
	real_find();
	process = getpid();
	environment_setup();
	hidden_setup();
	wait_prepare();
	pthread_atfork(before_fork, in_parent, in_child);
}
