/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing as a socket's modes and flags say. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "io.h"
#include "declined.h"
#include "handshake.h"
#include "real.h"
#include "wait.h"

/* ---- limits ---- */

int64_t io_limit(struct sock *s, int fd, enum side side)
{
	_Atomic int64_t *limit = side == READER ? &s->shared->receive_limit : &s->shared->send_limit;
	int64_t ns = atomic_load(limit);
	struct timeval t = { 0 };
	socklen_t size = sizeof(t);

	if (ns >= 0)
		return ns;
	if (real()->getsockopt(fd, SOL_SOCKET, side == READER ? SO_RCVTIMEO : SO_SNDTIMEO, &t, &size) != 0)
		return 0;
	ns = t.tv_sec * INT64_C(1000000000) + t.tv_usec * INT64_C(1000);
	atomic_store(limit, ns);
	return ns;
}

static bool must_not_wait(const struct sock *s, int flags)
{
	return (flags & MSG_DONTWAIT) || atomic_load_explicit(&s->shared->nonblocking, memory_order_relaxed);
}

/* Whether a call on this socket may wait. */
static bool may_wait(struct sock *s, int fd, enum side side, int flags, struct patience *p)
{
	int64_t limit;

	if (must_not_wait(s, flags))
		return false;
	if (p->deadline == 0) {
		limit = io_limit(s, fd, side);
		p->deadline = limit > 0 ? now_ns() + limit : FOREVER;
	}
	return true;
}

/* Wait as a call on this socket would: 0, or what it fails with. */
static int wait_for(struct sock *s, int fd, enum side side, int flags, struct patience *p)
{
	return may_wait(s, fd, side, flags, p) ? wait_side(s, fd, side, p) : -EAGAIN;
}

/*
 * Whether a call may wait for the handshake. Over TCP there is room for a client's first write whatever happens, so MSG_DONTWAIT is not
 * thought to fail; it waits no longer than until the client gives up.
 */
static bool must_not_settle(const struct sock *s, enum side side, int flags)
{
	return must_not_wait(s, side == WRITER && s->shared->client ? flags & ~MSG_DONTWAIT : flags);
}

/* Wait for the handshake: 0, or what the call gives. */
static int wait_settled(struct sock *s, int fd, enum side side, int flags)
{
	int64_t limit;

	atomic_store(&s->shared->told, true);
	if (declined_has_shut(s, side))
		return side == READER ? IO_END : -EPIPE;
	if (side == WRITER)
		declined_wanted(s);
	if (must_not_settle(s, side, flags))
		return side == WRITER && declined_at_once(s, fd) ? 0 : -EAGAIN;
	limit = io_limit(s, fd, side);
	return handshake_wait(s, fd, side, limit > 0 ? now_ns() + limit : FOREVER);
}

/*
 * In a signal's handler whose thread is in the middle of a call of the library's: whether this one would wait for that one, which goes on
 * only when the handler has returned. A thread that waits is in the middle of nothing.
 */
static bool waits_for_itself(struct sock *s, enum side side)
{
	switch (sock_kind(s)) {
	case SOCK_SMC:
		return stream_is_mine(&s->stream, side) || lock_is_mine(&s->watching) || epoll_is_mine(s);
	case SOCK_CONNECTING:
	case SOCK_HANDSHAKE:
		return true;
	}
	return false;
}

int io_ready(struct sock *s, int fd, enum side side, int flags)
{
	int err;

	if (__builtin_expect(lock_count > 0, 0) && waits_for_itself(s, side))
		return must_not_wait(s, flags) ? -EAGAIN : -EDEADLK;
	err = handshake_lets(s, fd, side) ? 0 : wait_settled(s, fd, side, flags);
	if (err != 0)
		return err;
	switch (sock_kind(s)) {
	case SOCK_SMC:
		return 0;
	case SOCK_ELSEWHERE:
		return -ECONNRESET;
	case SOCK_FAILED:
		if (atomic_exchange(&s->shared->error_told, true))
			return side == READER ? IO_END : -EPIPE;
		return -atomic_load(&s->shared->error);
	}
	return IO_PLAIN;
}

/* It has moved bytes. handlers: how many had run before: what came before the first byte has resumed the call, as in the kernel, and is over. */
static inline void has_moved(struct patience *p, uint32_t handlers)
{
	if (!p->begun)
		p->since.all = handlers;
	p->begun = true;
}

size_t io_length(const struct iovec *iov, int n)
{
	size_t length = 0;

	for (int i = 0; i < n; i++)
		length += iov[i].iov_len;
	return length;
}

/* ---- reading ---- */

ssize_t io_read(struct sock *s, int fd, const struct iovec *iov, int n, int flags, struct patience *p)
{
	size_t done = 0, wanted = io_length(iov, n);

	p->deadline = 0;
	for (;;) {
		uint32_t handlers = signals_seen.all;
		ssize_t got = stream_read(&s->stream, iov, n, flags & MSG_PEEK ? 0 : done, flags & MSG_PEEK);
		int err;

		if (got >= 0 && (flags & MSG_PEEK))
			done = 0;
		if (got > 0) {
			done += (size_t)got;
			has_moved(p, handlers);
			if (!(flags & MSG_WAITALL) || done == wanted)
				return (ssize_t)done;
			if (flags & MSG_PEEK && (!may_wait(s, fd, READER, flags, p) || io_wait_for_more(s, fd, done, p) != 0))
				return (ssize_t)done;
			continue;
		}
		if (got != -EAGAIN)
			return done > 0 ? (ssize_t)done : got < 0 ? -stream_take_error(&s->stream) : 0;
		err = wait_for(s, fd, READER, flags, p);
		if (err != 0)
			return done > 0 ? (ssize_t)done : err;
	}
}

/* ---- writing ---- */

void io_broken_pipe(int flags)
{
	if (!(flags & MSG_NOSIGNAL))
		pthread_kill(pthread_self(), SIGPIPE);
}

ssize_t io_refuse(struct sock *s, size_t n, int flags)
{
	ssize_t taken = stream_refuse(&s->stream, n);

	if (taken == -EPIPE)
		io_broken_pipe(flags);
	if (taken > 0) { /* whoever waits hears that it has failed now */
		stream_rouse(&s->stream);
		epoll_news(s);
	}
	return taken;
}

/* An edge-triggered set has to hear of the space that the caller now waits for. */
static void tell_full(struct sock *s)
{
	if (s->registered > 0)
		epoll_news(s);
}

int io_wait_to_write(struct sock *s, int fd, ssize_t gave, int flags, struct patience *p)
{
	int err = 0;

	if (gave == -EBUSY && !must_not_wait(s, flags))
		stream_wait_turn(&s->stream);
	else
		err = gave == -EBUSY ? -EAGAIN : wait_for(s, fd, WRITER, flags, p);
	if (err != 0)
		tell_full(s);
	return err;
}

ssize_t io_write(struct sock *s, int fd, const struct iovec *iov, int n, int flags, struct patience *p)
{
	bool whole = !must_not_wait(s, flags);
	size_t done = 0, wanted = io_length(iov, n);

	p->deadline = 0;
	while (done < wanted) {
		uint32_t handlers = signals_seen.all;
		ssize_t put = stream_write(&s->stream, iov, n, done, whole);

		if (put > 0) {
			done += (size_t)put;
			has_moved(p, handlers);
			continue;
		}
		if (put == -EBUSY || put == -EAGAIN)
			put = io_wait_to_write(s, fd, put, flags, p);
		if (put == 0)
			continue;
		if (done > 0)
			break;
		return put == -EAGAIN || put == -EINTR ? put : io_refuse(s, wanted, flags);
	}
	if (whole)
		stream_written(&s->stream);
	return (ssize_t)done;
}
