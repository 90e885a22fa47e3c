/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "debug.h"
#include "handshake.h"
#include "inherit.h"
#include "real.h"
#include "sock.h"
#include "table.h"

/*
 * The mark is the socket's own, in an option that every kernel has and that changes nothing where there is nothing to send. So it is true
 * whoever the child runs as, in whatever namespaces, and whether there is a device or a parent still; and it costs nothing until
 * a child is started. "SMCD", as a number of bytes, is more than a send queue ever holds.
 */
enum { MARK = 0x534d4344 };

bool inherit_stays(int fd)
{
	int flags = real()->fcntl(fd, F_GETFD);

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

int inherit_dead(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	(void)real()->shutdown(pair[0], SHUT_RDWR);
	real()->close(pair[1]);
	return pair[0];
}

/* ---- in the parent ---- */

static bool get_mark(int fd, int *value)
{
	socklen_t size = sizeof(*value);

	return real()->getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value, &size) == 0;
}

static void set_mark(int fd, int value)
{
	(void)real()->setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &value, sizeof(value));
}

/* What was there is kept: a connection on its way may still become TCP. */
static void mark(struct sock *s, int fd)
{
	struct shared *sh = s->shared;
	int kind = sock_kind(s);

	if (sh->marked || kind == SOCK_PLAIN || kind == SOCK_FAILED || !get_mark(fd, &sh->unmarked))
		return;
	sh->marked = true;
	set_mark(fd, MARK);
}

void inherit_prepare(struct sock *s, int fd)
{
	if (sock_kind(s) == SOCK_LISTENER || handshake_refuse(s, fd))
		return;
	lock_take(&s->shared->handshake);
	mark(s, fd);
	lock_release(&s->shared->handshake);
}

void inherit_unmark(struct sock *s, int fd)
{
	if (!s->shared->marked || s->ended) /* the number may be another's already */
		return;
	s->shared->marked = false;
	set_mark(fd, s->shared->unmarked);
}

/* ---- in the child ---- */

static void look(int fd, void *context)
{
	int value, *dead = context;

	if (!get_mark(fd, &value) || value != MARK)
		return;
	if (*dead < 0)
		*dead = inherit_dead();
	if (*dead < 0 || real()->dup2(*dead, fd) != fd)
		real()->close(fd);
	debug("fd %d is a connection in SMC-D mode, of who has started this program: here it is shut down", fd);
}

void inherit_look(void)
{
	int saved = errno, dead = -1;

	look(2, &dead); /* before anything is said of others there */
	inherit_each(look, &dead);
	if (dead >= 0)
		real()->close(dead);
	errno = saved;
}

/* ---- which are open ---- */

/*
 * It is asked of poll, many at once: the start of every program waits for this, and /proc takes longer, the more so
 * the more there are. Above those that programs usually have it ends with the first gap.
 */
enum { AT_ONCE = 256, ALWAYS = 1024 };

/* Whether any is open, as far as poll tells: it may not take as many. */
static bool some(int from, void (*f)(int fd, void *context), void *context)
{
	struct pollfd p[AT_ONCE] = { 0 };
	int told, closed = 0;

	for (int i = 0; i < AT_ONCE; i++)
		p[i].fd = from + i;
	told = real()->poll(p, AT_ONCE, 0);
	for (int i = 0; i < AT_ONCE; i++)
		if (p[i].revents & POLLNVAL)
			closed++;
		else
			f(p[i].fd, context);
	return told >= 0 && closed < AT_ONCE;
}

void inherit_each(void (*f)(int fd, void *context), void *context)
{
	for (int from = 0; (some(from, f, context) || from + AT_ONCE < ALWAYS) && from < TABLE_SIZE; from += AT_ONCE)
		;
}
