/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes. A child of fork has its parent's connections: each counts who has it, and only the last one closes. A child of vfork has its
 * parent's memory and must not touch what is there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "arena.h"
#include "connect.h"
#include "debug.h"
#include "device.h"
#include "epoll.h"
#include "group.h"
#include "handshake.h"
#include "inherit.h"
#include "io.h"
#include "link.h"
#include "poll_set.h"
#include "real.h"
#include "self.h"
#include "sock.h"
#include "table.h"
#include "spin.h"

static pid_t process;

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

static uint32_t forks; /* under ends_lock */

/* The child's place among its kin, which needs one only if there are sockets. */
static _Thread_local unsigned int child;
static _Thread_local bool child_expected;

static void expect_child(void)
{
	child = kin_expect();
	if (child == 0) {
		each_socket(holders_bury);
		child = kin_expect();
	}
	child_expected = true;
}

static void hold(struct sock *s, int fd)
{
	(void)fd;
	if (s->forks == forks)
		return;
	s->forks = forks;
	if (!child_expected)
		expect_child();
	holders_expect(s, child);
	lock_take(&s->listing);
}

static void let_go(struct sock *s, int fd)
{
	(void)fd;
	if (s->forks != forks)
		return;
	s->forks = 0;
	lock_release(&s->listing);
}

/* Other threads of the parent's may have held locks and references. */
static void renew(struct sock *s)
{
	s->listing.word = s->watching.word = 0;
	s->waiters[READER] = s->waiters[WRITER] = 0;
	s->held = s->forks == forks;
	s->place = child;
	s->fds = s->refs = 0;
	s->waits_for_server = false;
	if (s->link.group != NULL && s->link.group->page != NULL && page_forked(s->link.group->page, s->link.own_bit, s))
		s->refs++;
	s->refs += items_forked(s);
}

/* Makes anew what each has to count of references: one for each descriptor, and what the page and epoll sets have. */
static void renew_all(void)
{
	int end = table_end();

	for (int fd = 0; fd < end; fd++)
		if (table_has(fd))
			table_sock(fd)->fds = 0;
	for (int fd = 0; fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_sock(fd) : NULL;

		if (s == NULL)
			continue;
		if (s->fds == 0)
			renew(s);
		s->fds++;
		s->refs++;
	}
}

/* ---- fork ---- */

static void before_fork(void)
{
	lock_take(&ends_lock);
	forks++;
	child = 0;
	child_expected = false;
	each_socket(hold);
	lock_take(&link_lock);
	lock_take(&device_lock);
	lock_take(&free_lock);
	epoll_before_fork();
	lock_take(&hidden_lock);
}

static void in_parent(void)
{
	lock_release(&hidden_lock);
	epoll_in_parent();
	lock_release(&free_lock);
	lock_release(&device_lock);
	lock_release(&link_lock);
	each_socket(let_go);
	lock_release(&ends_lock);
}

static void in_child(void)
{
	lock_forget_thread();
	process = getpid();
	free_lock.word = device_lock.word = link_lock.word = ends_lock.word = hidden_lock.word = 0;
	kin_come(child);
	device_forked();
	link_forked();
	arena_forked();
	self_forked();
	epoll_forked();
	renew_all();
	poll_set_forked();
}

/* What this process has answered, it takes the Confirm of: the child is not attached to DMBs that the client offers again. */
static void take_confirm(struct sock *s, int fd)
{
	if (sock_kind(s) == SOCK_HANDSHAKE && !s->shared->client && s->shared->awaits == CLC_CONFIRM)
		(void)handshake_lets(s, fd, READER);
}

/* One that fails has counted a child all the same. */
EXPORT pid_t fork(void)
{
	pid_t pid;

	each_socket(take_confirm);
	pid = real()->fork();
	if (pid < 0)
		kin_missed(child);
	return pid;
}

/*
 * ---- exec ----
 *
 * The new program knows nothing of what its descriptors were. A connection that it would inherit and that nobody has answered yet becomes
 * TCP: a server that forks and runs a program for each client works so. One whose bytes do not go through TCP is made a
 * socket that is shut down in both directions: reads give the end, writes EPIPE. What cannot be replaced, since there are too many or no
 * descriptors are left, is closed by the exec (and stays marked so if that fails). And this process has its connections no more, as its kin
 * see by its lock (kin.h).
 */

enum { MOST_REPLACED = 256 };

/* On the stack: a child of vfork has its parent's heap. */
struct exec_state {
	struct {
		int fd, saved;
	} replaced[MOST_REPLACED];
	int n;
};

static bool replace(struct exec_state *e, int fd)
{
	int dead = e->n < MOST_REPLACED ? inherit_dead() : -1, saved;
	bool done;

	if (dead < 0)
		return false;
	saved = real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);
	done = saved >= 0 && real()->dup2(dead, fd) == fd;
	real()->close(dead);
	if (done) {
		e->replaced[e->n].fd = fd;
		e->replaced[e->n++].saved = saved;
	} else if (saved >= 0) {
		real()->close(saved);
	}
	return done;
}

static void disguise(struct exec_state *e, int fd)
{
	if (inherit_stays(fd) && !replace(e, fd))
		(void)real()->fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void before_exec(struct exec_state *e)
{
	e->n = 0;
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_get(fd, true) : NULL;
		int kind = s != NULL ? sock_kind(s) : 0;

		if (kind == SOCK_SMC || kind == SOCK_ELSEWHERE || (kind == SOCK_HANDSHAKE && inherit_stays(fd) && !handshake_refuse(s, fd)))
			disguise(e, fd);
		if (s != NULL)
			sock_put(s);
	}
}

static void after_failed_exec(struct exec_state *e)
{
	int saved = errno;

	while (e->n-- > 0) {
		(void)real()->dup2(e->replaced[e->n].saved, e->replaced[e->n].fd);
		real()->close(e->replaced[e->n].saved);
	}
	errno = saved;
}

EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
	struct exec_state e;
	int result;

	before_exec(&e);
	result = real()->execve(path, arguments, environment);

	after_failed_exec(&e);
	return result;
}

EXPORT int execv(const char *path, char *const arguments[])
{
	return execve(path, arguments, environ);
}

EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
	struct exec_state e;
	int result;

	before_exec(&e);
	result = real()->execvpe(file, arguments, environment);

	after_failed_exec(&e);
	return result;
}

EXPORT int execvp(const char *file, char *const arguments[])
{
	return execvpe(file, arguments, environ);
}

EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
	struct exec_state e;
	int result;

	before_exec(&e);
	result = real()->fexecve(fd, arguments, environment);

	after_failed_exec(&e);
	return result;
}

EXPORT int execveat(int fd, const char *path, char *const arguments[], char *const environment[], int flags)
{
	struct exec_state e;
	int result;

	before_exec(&e);
	result = real()->execveat(fd, path, arguments, environment, flags);

	after_failed_exec(&e);
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

/* What the C library flushes later would find no connection. */
__attribute__((destructor)) static void at_exit(void)
{
	streams_flush();
	close_all();
}

__attribute__((constructor)) static void set_up(void)
{
	real_find();
	process = getpid();
	environment_setup();
	inherit_look();
	spin_prepare();
	real_at_fork(before_fork, in_parent, in_child);
	listeners_passed();
}
