/* SPDX-License-Identifier: Apache-2.0 */
/* read and write, in all their forms. What is not a connection in SMC-D mode goes to the C library after one look at the table. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"
#include "handshake.h"
#include "io.h"
#include "plain.h"
#include "poll.h"
#include "real.h"
#include "table.h"

ssize_t io_result(ssize_t n)
{
	if (n >= 0)
		return n;
	errno = (int)-n;
	return -1;
}

enum direction { READS, WRITES };

/* One call on a descriptor that the table has, or a part of one; false: it is the kernel's after all. */
static bool move_part(int fd, enum direction way, const struct iovec *iov, int n, int flags, struct patience *p, ssize_t *result)
{
	struct sock *s = table_get(fd, false);
	int ready;

	if (s == NULL || sock_kind(s) == SOCK_LISTENER) {
		if (s != NULL)
			sock_put(s);
		return false;
	}
	ready = io_ready(s, fd, way == READS ? READER : WRITER, flags);
	if (ready == IO_PLAIN) {
		sock_put(s);
		return false;
	}
	if (ready == IO_END)
		*result = 0;
	else if (ready < 0)
		*result = ready;
	else if (way == READS)
		*result = io_read(s, fd, iov, n, flags, p);
	else
		*result = io_write(s, fd, iov, n, flags, p);
	if (ready == -EPIPE)
		io_broken_pipe(flags);
	*result = io_result(*result);
	sock_put(s);
	return true;
}

static bool move(int fd, enum direction way, const struct iovec *iov, int n, int flags, ssize_t *result)
{
	struct patience patience = patience_new();

	return move_part(fd, way, iov, n, flags, &patience, result);
}

/* A list that the kernel refuses before it looks at the socket is left to it. */
static bool is_list(const struct iovec *iov, int n)
{
	if (n < 0 || n > IOV_MAX)
		return false;
	for (int i = 0; i < n; i++)
		if ((ssize_t)iov[i].iov_len < 0)
			return false;
	return true;
}

static bool holds_nothing(const struct iovec *iov, int n)
{
	for (int i = 0; i < n; i++)
		if (iov[i].iov_len > 0)
			return false;
	return true;
}

/* read and its kind: unlike recv it does not even look for nothing. */
static bool move_list(int fd, enum direction way, const struct iovec *iov, int n, int flags, ssize_t *result)
{
	return is_list(iov, n) && !(way == READS && holds_nothing(iov, n)) && move(fd, way, iov, n, flags, result);
}

static bool move_one(int fd, enum direction way, void *b, size_t n, int flags, ssize_t *result)
{
	struct iovec iov = { b, n };

	return move(fd, way, &iov, 1, flags, result);
}

APART static ssize_t read_moved(int fd, void *b, size_t n)
{
	ssize_t result;

	return n > 0 && move_one(fd, READS, b, n, 0, &result) ? result : real()->read(fd, b, n);
}

APART static ssize_t write_moved(int fd, const void *b, size_t n)
{
	ssize_t result;

	return move_one(fd, WRITES, (void *)(uintptr_t)b, n, 0, &result) ? result : real()->write(fd, b, n);
}

EXPORT HOT OWN_PAGE ssize_t read(int fd, void *b, size_t n)
{
	return table_moves(fd) ? read_moved(fd, b, n) : real()->read(fd, b, n);
}

EXPORT HOT ssize_t write(int fd, const void *b, size_t n)
{
	return table_moves(fd) ? write_moved(fd, b, n) : real()->write(fd, b, n);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	ssize_t result;

	if (table_moves(fd) && move_list(fd, READS, iov, n, 0, &result))
		return result;
	return real()->readv(fd, iov, n);
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	ssize_t result;

	if (table_moves(fd) && move_list(fd, WRITES, iov, n, 0, &result))
		return result;
	return real()->writev(fd, iov, n);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
	ssize_t result;

	if (offset == -1 && table_moves(fd) && move_list(fd, READS, iov, n, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0, &result))
		return result;
	return real()->preadv2(fd, iov, n, offset, flags);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
	ssize_t result;

	if (offset == -1 && table_moves(fd) && move_list(fd, WRITES, iov, n, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0, &result))
		return result;
	return real()->pwritev2(fd, iov, n, offset, flags);
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t offset, int flags)
{
	return preadv2(fd, iov, n, offset, flags);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off64_t offset, int flags)
{
	return pwritev2(fd, iov, n, offset, flags);
}

/* Flags under which there is nothing to move: urgent data is neither sent nor received, and the error queue is empty. */
APART static bool odd(int flags, ssize_t *result)
{
	if (flags & MSG_OOB)
		errno = EOPNOTSUPP;
	else if (flags & MSG_ERRQUEUE)
		errno = EAGAIN;
	else
		return false;
	*result = -1;
	return true;
}

/* Waits for a byte, and leaves it. */
static bool await_any(int fd, int flags, struct patience *p, ssize_t *result)
{
	struct iovec iov = { &(char){ 0 }, 1 };
	bool moved = move_part(fd, READS, &iov, 1, (flags & ~MSG_WAITALL) | MSG_PEEK, p, result);

	if (moved && *result > 0)
		*result = 0;
	return moved;
}

/* TCP throws away what is received with MSG_TRUNC. Threads with small stacks do not come here. */
APART static bool throw_away(int fd, size_t n, int flags, struct patience *p, ssize_t *result)
{
	char waste[16384];
	struct iovec iov = { waste, n < sizeof(waste) ? n : sizeof(waste) };

	return move_part(fd, READS, &iov, 1, flags, p, result);
}

APART static bool receive_part(int fd, const struct iovec *iov, int n, int flags, struct patience *p, ssize_t *result)
{
	if (odd(flags, result))
		return true;
	if (holds_nothing(iov, n))
		return await_any(fd, flags, p, result);
	return flags & MSG_TRUNC ? throw_away(fd, iov[0].iov_len, flags, p, result) : move_part(fd, READS, iov, n, flags, p, result);
}

static bool receive(int fd, const struct iovec *iov, int n, int flags, ssize_t *result)
{
	struct patience patience = patience_new();

	return receive_part(fd, iov, n, flags, &patience, result);
}

EXPORT ssize_t recvfrom(int fd, void *b, size_t n, int flags, struct sockaddr *from, socklen_t *size)
{
	struct iovec iov = { b, n };
	ssize_t result;

	if (!table_moves(fd) || !receive(fd, &iov, 1, flags, &result))
		return real()->recvfrom(fd, b, n, flags, from, size);
	if (from != NULL && size != NULL)
		*size = 0;
	return result;
}

EXPORT HOT ssize_t recv(int fd, void *b, size_t n, int flags)
{
	struct iovec iov = { b, n };
	ssize_t result;

	if (table_moves(fd) && receive(fd, &iov, 1, flags, &result))
		return result;
	return real()->recv(fd, b, n, flags);
}

/* ---- messages, which pass descriptors ---- */

/* A connection that nobody has answered yet passes as TCP. One whose bytes do not go through TCP is nothing to whom it is passed. */
static bool can_pass(int fd)
{
	struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;
	int kind;

	(void)plain_spread(fd, NOTE_SHARED);
	if (s == NULL)
		return true;
	if (!handshake_refuse(s, fd))
		(void)handshake_drive(s, fd);
	kind = sock_kind(s);
	sock_put(s);
	if (kind != SOCK_SMC && kind != SOCK_HANDSHAKE && kind != SOCK_ELSEWHERE)
		return true;
	debug("fd %d is in SMC-D mode and cannot be passed to another process", fd);
	return false;
}

/* Asks of each descriptor that a message passes. The lengths are 32 bits wide where the program is one of musl, which fills nothing else in. */
static bool all_passed(const struct msghdr *m, bool (*f)(int fd))
{
	const unsigned char *at = m->msg_control;
	size_t left = (uint32_t)m->msg_controllen;

	while (at != NULL && left >= sizeof(struct cmsghdr)) {
		struct cmsghdr c;
		size_t size;

		memcpy(&c, at, sizeof(c));
		size = (uint32_t)c.cmsg_len;
		if (size < sizeof(c) || size > left)
			return true;
		for (size_t i = sizeof(c); c.cmsg_level == SOL_SOCKET && c.cmsg_type == SCM_RIGHTS && i + sizeof(int) <= size; i += sizeof(int)) {
			int passed;

			memcpy(&passed, at + i, sizeof(passed));
			if (!f(passed))
				return false;
		}
		if (CMSG_ALIGN(size) > left)
			return true;
		at += CMSG_ALIGN(size);
		left -= CMSG_ALIGN(size);
	}
	return true;
}

static bool has_come(int fd)
{
	plain_unknown(fd);
	return true;
}

static ssize_t receive_message(int fd, struct msghdr *m, int flags, struct patience *p)
{
	ssize_t result;

	if (!table_moves(fd) || !is_list(m->msg_iov, (int)m->msg_iovlen) || !receive_part(fd, m->msg_iov, (int)m->msg_iovlen, flags, p, &result)) {
		result = real()->recvmsg(fd, m, flags);
		if (result >= 0)
			(void)all_passed(m, has_come);
		return result;
	}
	m->msg_namelen = 0;
	m->msg_controllen = 0;
	m->msg_flags = 0;
	return result;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	struct patience patience = patience_new();

	return receive_message(fd, m, flags, &patience);
}

EXPORT HOT ssize_t send(int fd, const void *b, size_t n, int flags)
{
	ssize_t result;

	if (table_moves(fd) && (odd(flags, &result) || move_one(fd, WRITES, (void *)(uintptr_t)b, n, flags, &result)))
		return result;
	return real()->send(fd, b, n, flags);
}

EXPORT ssize_t sendto(int fd, const void *b, size_t n, int flags, const struct sockaddr *to, socklen_t size)
{
	ssize_t result;

	if (table_moves(fd) && (odd(flags, &result) || move_one(fd, WRITES, (void *)(uintptr_t)b, n, flags, &result)))
		return result;
	return real()->sendto(fd, b, n, flags, to, size);
}

static ssize_t send_message(int fd, const struct msghdr *m, int flags, struct patience *p)
{
	ssize_t result;

	if (table_moves(fd) && is_list(m->msg_iov, (int)m->msg_iovlen) &&
	    (odd(flags, &result) || move_part(fd, WRITES, m->msg_iov, (int)m->msg_iovlen, flags, p, &result)))
		return result;
	if (!all_passed(m, can_pass)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return real()->sendmsg(fd, m, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	struct patience patience = patience_new();

	return send_message(fd, m, flags, &patience);
}

/* What follows one of which a part was sent is not. */
EXPORT int sendmmsg(int fd, struct mmsghdr *m, unsigned int n, int flags)
{
	struct patience patience = patience_new();
	unsigned int sent = 0;

	if (!table_moves(fd)) {
		while (sent < n && all_passed(&m[sent].msg_hdr, can_pass))
			sent++;
		return sent == 0 && n > 0 ? (int)io_result(-EOPNOTSUPP) : real()->sendmmsg(fd, m, sent, flags);
	}
	while (sent < n) {
		const struct msghdr *next = &m[sent].msg_hdr;
		ssize_t one = send_message(fd, next, flags, &patience);

		if (one < 0)
			return sent > 0 ? (int)sent : -1;
		m[sent++].msg_len = (unsigned int)one;
		if ((size_t)one < io_length(next->msg_iov, (int)next->msg_iovlen))
			break;
	}
	return (int)sent;
}

/* What a call that has got something cannot tell is the next one's. */
static void tell_again(int fd, int error)
{
	struct sock *s = error != EAGAIN && error != EINTR ? table_get(fd, false) : NULL;

	if (s == NULL)
		return;
	if (sock_kind(s) == SOCK_SMC)
		stream_tell_again(&s->stream, error);
	sock_put(s);
}

/* As the kernel does: the limit is looked at between messages only. */
EXPORT int recvmmsg(int fd, struct mmsghdr *m, unsigned int n, int flags, struct timespec *timeout)
{
	struct patience patience = patience_new();
	unsigned int got = 0;
	int64_t deadline;
	int result;

	if (!table_moves(fd)) {
		result = real()->recvmmsg(fd, m, n, flags, timeout);
		for (int i = 0; i < result; i++)
			(void)all_passed(&m[i].msg_hdr, has_come);
		return result;
	}
	deadline = poll_deadline(timeout);
	while (got < n) {
		ssize_t one = receive_message(fd, &m[got].msg_hdr, flags & ~MSG_WAITFORONE, &patience);

		if (one < 0 && got > 0)
			tell_again(fd, errno);
		if (one < 0)
			return got > 0 ? (int)got : -1;
		m[got++].msg_len = (unsigned int)one;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (timeout == NULL)
			continue;
		*timeout = time_left(deadline);
		if (timeout->tv_sec == 0 && timeout->tv_nsec == 0)
			break;
	}
	return (int)got;
}

/* ---- what -D_FORTIFY_SOURCE calls ---- */

EXPORT ssize_t __read_chk(int fd, void *b, size_t n, size_t room)
{
	if (n > room)
		abort();
	return read(fd, b, n);
}

EXPORT ssize_t __recv_chk(int fd, void *b, size_t n, size_t room, int flags)
{
	if (n > room)
		abort();
	return recv(fd, b, n, flags);
}

EXPORT ssize_t __recvfrom_chk(int fd, void *b, size_t n, size_t room, int flags, struct sockaddr *from, socklen_t *size)
{
	if (n > room)
		abort();
	return recvfrom(fd, b, n, flags, from, size);
}
