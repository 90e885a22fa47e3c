/* SPDX-License-Identifier: Apache-2.0 */
/* listen and accept. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

#include "accept.h"
#include "connect.h"
#include "debug.h"
#include "device.h"
#include "handshake.h"
#include "io.h"
#include "plain.h"
#include "real.h"
#include "self.h"
#include "sock.h"
#include "syn.h"
#include "table.h"

/* ---- listen ---- */

static void join_device(struct sock *s, int fd, struct device *d)
{
	bool tcp_only = is_tcp_only(fd);
	int err = tcp_only ? -EINVAL : smcopt_mark(fd, d);

	s->device = d;
	s->shared->slot = 0;
	s->shared->reason = tcp_only ? SMC_DECL_OPTUNSUPP : 0;
	if (err == 0)
		s->shared->awaits = CLC_PROPOSAL; /* connections may have been promised SMC */
	sock_describe(s, fd);
	debug("listening on fd %d%s", fd, err == 0 ? "" : ": not marked, plain TCP only");
}

/* Mark a listener for the device that there is now; describe it there. Several threads can accept from it. */
static HOT void join(struct sock *s, int fd)
{
	struct device *d = device_current();

	if (d == NULL)
		return;
	lock_take(&s->shared->handshake);
	if (d != s->device || s->shared->slot == 0)
		join_device(s, fd, d);
	lock_release(&s->shared->handshake);
}

static struct sock *listener_new(int fd)
{
	struct sock *s = sock_new(SOCK_LISTENER, false);

	if (s == NULL)
		return NULL;
	atomic_store(&s->shared->buffer, buffer_asked(fd));
	s->device = NULL;
	join(s, fd);
	sock_place(s, fd, false);
	return s;
}

EXPORT int listen(int fd, int backlog)
{
	struct sock *s = NULL;
	int result;

	if (table_noted(fd, NOTE_TCP))
		plain_keep(fd); /* its close may not have been seen */
	/* Marked before the first client can be answered; without a device, when there is one. */
	if (!table_has(fd) && !environment_off() && is_tcp(fd))
		s = listener_new(fd);
	result = real()->listen(fd, backlog);
	if (s == NULL)
		return result;
	if (result != 0) {
		int saved = errno;

		sock_anew(s);
		errno = saved;
	} else {
		sock_describe(s, fd); /* its port may be new */
	}
	sock_put(s);
	return result;
}

/* ---- listeners from elsewhere ---- */

static bool is_listener(int fd)
{
	int listening = 0;
	socklen_t size = sizeof(listening);

	return is_tcp(fd) && real()->getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

/* By exec, or over a Unix socket: only if it is marked, since who shares one that is not may know nothing of SMC. */
static struct sock *adopt(int fd)
{
	return device_current() != NULL && is_listener(fd) && smcopt_ask(fd) == SMCOPT_LISTENER ? listener_new(fd) : NULL;
}

void listeners_passed(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	int end = pid != NULL && n != NULL && atoi(pid) == getpid() && !environment_off() ? 3 + atoi(n) : 0;

	for (int fd = 3; fd < end && real()->fcntl(fd, F_GETFD) >= 0; fd++) {
		struct sock *s = is_listener(fd) ? listener_new(fd) : NULL;

		if (s == NULL) {
			debug("fd %d has been passed and is no TCP listener: left alone", fd);
			continue;
		}
		s->shared->passed = true;
		sock_put(s);
	}
}

/* ---- accept ---- */

/* On TCP. The listener's device is the one that there is now. */
static inline void take_plain(int fd, const struct sock *listener, uint32_t reason, const union address *peer)
{
	if (listener->device == NULL || !plain_list(fd, listener->device, false, reason, peer))
		stay_plain(fd, false, reason, peer);
}

/* false: the connection is reset, since nobody can tell what its client expects. */
APART static bool take_promised(int fd, int flags, const struct sock *listener, const union address *peer, int answer)
{
	struct sock *s = answer < 0 ? NULL : sock_new(SOCK_HANDSHAKE, false);

	if (s == NULL) {
		debug("fd %d is reset: cannot tell whether it is SMC", fd);
		tcp_reset(fd);
		real()->close(fd);
		return false;
	}
	atomic_store(&s->shared->buffer, atomic_load(&listener->shared->buffer));
	atomic_store(&s->shared->nonblocking, (flags & SOCK_NONBLOCK) != 0);
	s->shared->awaits = CLC_PROPOSAL;
	s->shared->peer = *peer;
	table_set(fd, s, false);
	sock_describe(s, fd);
	/*
	 * A server that forks for each client answers in the child, so that what is told there is the child's own. But the client may be
	 * this very thread, which waits for the answer.
	 */
	if (self_has_clients())
		(void)handshake_drive(s, fd);
	sock_put(s);
	return true;
}

static inline bool take(int fd, int flags, const struct sock *listener, const union address *peer)
{
	int answer;

	if (listener->shared->awaits != CLC_PROPOSAL) {
		take_plain(fd, listener, listener->shared->reason != 0 ? listener->shared->reason : SMC_DECL_NOSMCDEV, peer);
		return true;
	}
	answer = smcopt_ask(fd);
	/* ENODATA: its client was told nothing. */
	if (answer == -ENODATA || (answer > 0 && answer != SMCOPT_SMC) || (answer < 0 && syn_silent(fd))) {
		take_plain(fd, listener, SMC_DECL_PEERNOSMC, peer);
		return true;
	}
	return take_promised(fd, flags, listener, peer, answer);
}

/* A thread that waits here may be the only one to look after what link groups keep. Returns what poll does. */
APART static int wait_beside(struct sock *listener, int fd, struct signals since)
{
	struct pollfd in = { .fd = fd, .events = POLLIN };
	bool limited = io_limit(listener, fd, READER) > 0;

	for (int err = 0;;) {
		int n;

		link_sweep();
		if (signals_end(since, limited, err) && blocks(fd) && real()->poll(&in, 1, 0) == 0) {
			errno = EINTR;
			return -1;
		}
		if (!link_busy() || !blocks(fd) || limited) /* the kernel keeps the limit */
			return 1;
		n = real()->poll(&in, 1, 1000);
		if (n > 0 || (n < 0 && errno != EINTR))
			return n;
		err = n < 0 ? EINTR : 0;
	}
}

static inline int wait_for_client(struct sock *listener, int fd, struct signals since)
{
	return link_busy() || signals_came(since) ? wait_beside(listener, fd, since) : 1;
}

/* The kernel tells the client's address as it accepts, which costs less than asking for it later. */
static HOT int accept_from(int fd, struct sockaddr *from, socklen_t *size, int flags, union address *peer)
{
	socklen_t room = from != NULL && size != NULL ? *size : 0, own_size = sizeof(*peer);
	int made;

	if (from == NULL)
		return real()->accept4(fd, &peer->any, &own_size, flags);
	made = real()->accept4(fd, from, size, flags);
	if (made >= 0)
		*peer = address_of(from, *size < room ? *size : room);
	return made;
}

static HOT int accept_with(int fd, struct sockaddr *from, socklen_t *size, int flags)
{
	struct signals since = signals_now();
	socklen_t room = size != NULL ? *size : 0;

	for (;;) {
		struct sock *listener = table_get(fd, false);
		union address peer = { 0 };
		int made, saved;
		bool kept;

		if (listener != NULL && sock_kind(listener) != SOCK_LISTENER) { /* for the kernel to refuse */
			sock_put(listener);
			listener = NULL;
		}
		if (listener == NULL)
			listener = adopt(fd);
		if (listener != NULL)
			join(listener, fd);
		if (size != NULL)
			*size = room;
		made = listener != NULL && wait_for_client(listener, fd, since) < 0 ? -1 : accept_from(fd, from, size, flags, &peer);
		if (listener == NULL) {
			plain_unknown(made);
			return made;
		}
		kept = made < 0 || take(made, flags, listener, &peer);
		if (made >= 0) {
			sock_put(listener);
		} else {
			saved = errno;
			sock_put(listener);
			errno = saved;
		}
		if (kept)
			return made;
	}
}

EXPORT HOT int accept4(int fd, struct sockaddr *from, socklen_t *size, int flags)
{
	return accept_with(fd, from, size, flags);
}

EXPORT HOT int accept(int fd, struct sockaddr *from, socklen_t *size)
{
	return accept_with(fd, from, size, 0);
}
