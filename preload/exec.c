/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec. The new program knows nothing of what its descriptors were. A connection that it would inherit and that nobody has answered yet becomes
 * TCP: a server that forks and runs a program for each client works so. One whose bytes do not go through TCP is made a
 * socket that is shut down in both directions: reads give the end, writes EPIPE. What cannot be replaced, since there are too many or no
 * descriptors are left, is closed by the exec (and stays marked so if that fails). And this process has its connections no more, as its kin
 * see by its lock (kin.h).
 *
 * A child of vfork has its parent's memory and descriptors of its own, which it may have moved, closed and opened: the table speaks of its
 * parent's. So each that the new program would inherit is looked up by what it is. What is changed are the child's descriptors, and that a
 * connection has become TCP, of which the parent hears as it would of a child of fork.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handshake.h"
#include "inherit.h"
#include "plain.h"
#include "real.h"
#include "sock.h"
#include "table.h"

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

/* Whether the new program must not have it as it is. */
static bool is_other(struct sock *s, int fd)
{
	int kind = sock_kind(s);

	return kind == SOCK_SMC || kind == SOCK_ELSEWHERE || (kind == SOCK_HANDSHAKE && inherit_stays(fd) && !handshake_refuse(s, fd));
}

static void of_table(struct exec_state *e)
{
	for (int fd = 0, end = table_end(); fd < end; fd++) {
		struct sock *s = table_has(fd) ? table_get(fd, true) : NULL;

		if (s == NULL)
			continue;
		if (is_other(s, fd))
			disguise(e, fd);
		sock_put(s);
	}
}

/* ---- a child of vfork ---- */

static struct sock *sock_at(int fd, ino_t inode)
{
	struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;

	if (s == NULL || s->shared->inode == inode)
		return s;
	sock_put(s);
	return NULL;
}

/* The parent's socket that a descriptor of the child's is, with a reference; NULL: none. Most are where the parent has them. */
static struct sock *sock_of(int fd)
{
	struct sock *s;
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISSOCK(st.st_mode))
		return NULL;
	s = sock_at(fd, st.st_ino);
	for (int i = 0, end = table_end(); s == NULL && i < end; i++)
		s = sock_at(i, st.st_ino);
	return s;
}

static void look_up(int fd, void *state)
{
	struct sock *s = inherit_stays(fd) ? sock_of(fd) : NULL;

	if (s == NULL)
		return;
	if (is_other(s, fd))
		disguise(state, fd);
	sock_put(s);
}

static void before_exec(struct exec_state *e)
{
	e->n = 0;
	if (table_end() == 0)
		return;
	if (process_is_ours()) {
		of_table(e);
		return;
	}
	for (int fd = 0, end = table_end(); fd < end; fd++)
		plain_not_fresh(fd);
	inherit_each(look_up, e);
	lock_forget_thread(); /* the parent's thread goes on with what the child has learned of itself */
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
