/* SPDX-License-Identifier: Apache-2.0 */
/* Everything else on a descriptor: close and its kin, copies, modes, options, shutdown. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "connect.h"
#include "declined.h"
#include "epoll.h"
#include "handshake.h"
#include "io.h"
#include "plain.h"
#include "real.h"
#include "table.h"

/* ---- close ---- */

APART void more_forget(int fd)
{
	epoll_closed(fd);
	buffer_forget(fd);
	if ((unsigned int)fd < TABLE_SIZE)
		table[fd].more = false;
}

static void forget(int fd)
{
	if (table_note(fd, NOTE_NONE))
		epoll_forget(NULL, fd);
	else
		sock_drop(fd);
	more_forget(fd);
}

APART static int close_known(int fd)
{
	if (hidden_has(fd)) {
		errno = EBADF;
		return -1;
	}
	if (fd_known(fd) && process_is_ours())
		forget(fd);
	return real()->close(fd);
}

EXPORT HOT int close(int fd)
{
	return table_pass(fd) ? real()->close(fd) : close_known(fd);
}

static int close_between(unsigned int first, unsigned int last, int flags)
{
	int end = table_end();

	if (!(flags & CLOSE_RANGE_CLOEXEC) && process_is_ours())
		for (int fd = (int)first; fd < end && (unsigned int)fd <= last; fd++)
			if (fd_known(fd) && !hidden_has(fd))
				forget(fd);
	while (first <= last) {
		int next = flags & CLOSE_RANGE_CLOEXEC ? -1 : hidden_next(first);
		unsigned int until = next < 0 || (unsigned int)next > last ? last : (unsigned int)next - 1;

		if ((next < 0 || (unsigned int)next > first) && real()->close_range(first, until, flags) != 0)
			return -1;
		if (until == last)
			return 0;
		first = (unsigned int)next + 1;
	}
	return 0;
}

EXPORT int close_range(unsigned int first, unsigned int last, int flags)
{
	if (first > last) {
		errno = EINVAL;
		return -1;
	}
	return close_between(first, last, flags);
}

EXPORT void closefrom(int first)
{
	(void)close_between(first < 0 ? 0 : (unsigned int)first, ~0u, 0);
}

/* ---- copies ---- */

EXPORT int dup(int fd)
{
	int to = real()->dup(fd);

	if (to >= 0)
		sock_alias(fd, to);
	return to;
}

/* What the new number was goes, as close would do it; a number of the library's own is not to be had. */
static bool make_way(int from, int to)
{
	if (hidden_has(to)) {
		errno = EBADF;
		return false;
	}
	if (from != to && fd_known(to) && process_is_ours() && real()->fcntl(from, F_GETFD) >= 0)
		forget(to);
	return true;
}

EXPORT int dup2(int from, int to)
{
	int result;

	if (!make_way(from, to))
		return -1;
	result = real()->dup2(from, to);
	if (result >= 0 && from != to)
		sock_alias(from, to);
	return result;
}

EXPORT int dup3(int from, int to, int flags)
{
	int result;

	if (!make_way(from, to))
		return -1;
	result = real()->dup3(from, to, flags);
	if (result >= 0)
		sock_alias(from, to);
	return result;
}

/* ---- modes ---- */

static void set_nonblocking(int fd, bool on)
{
	struct sock *s = table_get(fd, true);

	if (s == NULL)
		return;
	atomic_store(&s->shared->nonblocking, on);
	sock_put(s);
}

static int control(int fd, int command, long argument)
{
	int result = real()->fcntl(fd, command, argument);

	if (result < 0)
		return result;
	if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
		sock_alias(fd, result);
	else if (command == F_SETFL)
		set_nonblocking(fd, argument & O_NONBLOCK);
	return result;
}

EXPORT int fcntl(int fd, int command, ...)
{
	va_list arguments;
	long argument;

	va_start(arguments, command);
	argument = va_arg(arguments, long);
	va_end(arguments);
	return control(fd, command, argument);
}

EXPORT int fcntl64(int fd, int command, ...)
{
	va_list arguments;
	long argument;

	va_start(arguments, command);
	argument = va_arg(arguments, long);
	va_end(arguments);
	return control(fd, command, argument);
}

/* false: it is the kernel's. What is written lies in the peer's memory, which is what TCP's acknowledgement says: nothing is queued. */
static bool count_bytes(int fd, unsigned long request, int *n)
{
	struct sock *s = table_get(fd, false);
	bool ours = s != NULL && sock_kind(s) != SOCK_LISTENER && handshake_drive(s, fd) && sock_kind(s) == SOCK_SMC;

	if (ours)
		*n = request == FIONREAD ? (int)stream_readable(&s->stream) : 0;
	if (s != NULL)
		sock_put(s);
	return ours;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if ((request == FIONREAD || request == SIOCOUTQ || request == SIOCOUTQNSD || request == SIOCATMARK) && table_moves(fd) &&
	    count_bytes(fd, request, argument))
		return 0;
	result = real()->ioctl(fd, request, argument);
	if (result == 0 && request == FIONBIO && table_has(fd))
		set_nonblocking(fd, *(int *)argument != 0);
	return result;
}

/* ---- options ---- */

/* SO_RCVBUF as programs set it before a socket is a connection, by descriptor. */
static _Atomic int asked[TABLE_SIZE];

int buffer_asked(int fd)
{
	return (unsigned int)fd < TABLE_SIZE && table[fd].more ? asked[fd] : 0;
}

void buffer_forget(int fd)
{
	if ((unsigned int)fd < TABLE_SIZE && asked[fd] != 0)
		asked[fd] = 0;
}

bool fd_known(int fd)
{
	return (unsigned int)fd < TABLE_SIZE && (table_has(fd) || !table_noted(fd, NOTE_NONE) || asked[fd] != 0 || epoll_knows(fd));
}

static void note_option(struct sock *s, int name, const void *value, socklen_t size)
{
	if (name == SO_RCVTIMEO)
		atomic_store(&s->shared->receive_limit, -1);
	else if (name == SO_SNDTIMEO)
		atomic_store(&s->shared->send_limit, -1);
	else if (name == SO_LINGER && size >= sizeof(struct linger))
		atomic_store(&s->shared->linger_zero, ((const struct linger *)value)->l_onoff && ((const struct linger *)value)->l_linger == 0);
	else if (name == SO_RCVBUF && size >= sizeof(int))
		atomic_store(&s->shared->buffer, *(const int *)value);
}

HOT_DATA atomic_bool tcp_only_asked;

/* What is not done in SMC-D mode, nor by whoever may come to it: as a kernel without it refuses. */
static bool refuses(int fd, int level, int name, const void *value, socklen_t size)
{
	struct sock *s;
	bool refused;

	if (level != SOL_SOCKET || name != SO_PEEK_OFF || size < sizeof(int) || *(const int *)value < 0)
		return false;
	s = table_get(fd, false);
	refused = s != NULL && sock_kind(s) != SOCK_PLAIN && !(sock_kind(s) == SOCK_LISTENER && s->shared->reason != 0);
	if (s != NULL)
		sock_put(s);
	return refused;
}

static inline bool is_of_tcp_only(int level, int name)
{
	return (level == IPPROTO_TCP && name == TCP_FASTOPEN_CONNECT) || (level == SOL_SOCKET && name == SO_PEEK_OFF);
}

APART static int set_option(int fd, int level, int name, const void *value, socklen_t size)
{
	struct sock *s;
	int result;

	if (refuses(fd, level, name, value, size)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	result = real()->setsockopt(fd, level, name, value, size);
	if (result == 0 && is_of_tcp_only(level, name) && is_tcp(fd)) {
		atomic_store(&tcp_only_asked, true);
		plain_not_again();
	}
	if (result != 0 || level != SOL_SOCKET || (unsigned int)fd >= TABLE_SIZE)
		return result;
	if (name == SO_RCVBUF && size >= sizeof(int) && !table_has(fd)) {
		asked[fd] = *(const int *)value;
		table_more(fd);
	}
	s = table_has(fd) ? table_get(fd, true) : NULL;
	if (s != NULL) {
		note_option(s, name, value, size);
		sock_put(s);
	}
	return result;
}

EXPORT HOT int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	if (!table_has(fd) && !(level == SOL_SOCKET && name == SO_RCVBUF) && !is_of_tcp_only(level, name))
		return real()->setsockopt(fd, level, name, value, size);
	return set_option(fd, level, name, value, size);
}

/* The error that a failed handshake or a connection in SMC-D mode has for SO_ERROR, 0 for none; -1: it is the kernel's. */
static int pending_error(struct sock *s, int fd)
{
	if (sock_kind(s) == SOCK_LISTENER)
		return -1;
	(void)handshake_drive(s, fd);
	switch (sock_kind(s)) {
	case SOCK_FAILED:
		return atomic_exchange(&s->shared->error_told, true) ? 0 : atomic_load(&s->shared->error);
	case SOCK_SMC:
		(void)stream_ready(&s->stream); /* what has come meanwhile */
		return stream_take_error(&s->stream);
	case SOCK_HANDSHAKE:
		atomic_store(&s->shared->told, true);
		return has_declined(s) ? -1 : 0;
	}
	return -1;
}

EXPORT int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	struct sock *s = level == SOL_SOCKET && name == SO_ERROR && table_moves(fd) ? table_get(fd, false) : NULL;
	int error;

	if (s == NULL)
		return real()->getsockopt(fd, level, name, value, size);
	error = pending_error(s, fd);
	sock_put(s);
	if (error < 0 || *size < sizeof(error) || *size > INT_MAX)
		return real()->getsockopt(fd, level, name, value, size);
	memcpy(value, &error, sizeof(error));
	*size = sizeof(error);
	return 0;
}

/* ---- shutdown ---- */

static int shut(struct sock *s, int fd, int how)
{
	int err;

	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return -EINVAL;
	if (how != SHUT_RD && s->shared->client)
		(void)io_ready(s, fd, WRITER, 0); /* as a write would wait */
	if (!handshake_drive(s, fd)) {
		err = declined_shutdown(s, fd, how);
		if (err == 0)
			return 0;
	}
	if (sock_kind(s) == SOCK_PLAIN || sock_kind(s) == SOCK_CONNECTING)
		return IO_PLAIN;
	if (sock_kind(s) != SOCK_SMC)
		return -ENOTCONN;
	err = stream_shutdown(&s->stream, how);
	if (err != 0)
		return err;
	stream_rouse(&s->stream); /* whoever waits here */
	epoll_news(s);
	sock_describe(s, fd);
	return 0;
}

EXPORT int shutdown(int fd, int how)
{
	struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;
	int result;

	if (s == NULL || sock_kind(s) == SOCK_LISTENER) {
		if (s != NULL)
			sock_put(s);
		return real()->shutdown(fd, how);
	}
	result = shut(s, fd, how);
	sock_put(s);
	return result == IO_PLAIN ? real()->shutdown(fd, how) : (int)io_result(result);
}
