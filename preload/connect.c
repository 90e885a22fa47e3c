/* SPDX-License-Identifier: Apache-2.0 */
/* socket and connect. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "connect.h"
#include "debug.h"
#include "device.h"
#include "epoll.h"
#include "handshake.h"
#include "plain.h"
#include "real.h"
#include "servers.h"
#include "settle.h"
#include "sock.h"
#include "table.h"

/*
 * How long a connect that may wait waits for the handshake. Most servers answer at once; one that does not (it accepts later, or this very
 * thread has to) is waited for by the first read or write.
 */
static const int64_t settle_ns = INT64_C(20000000);

bool is_tcp(int fd)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return real()->getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &size) == 0 && value == IPPROTO_TCP;
}

bool is_tcp_only(int fd)
{
	int open = 0, peek = -1;
	socklen_t size = sizeof(open);

	if (!atomic_load(&tcp_only_asked) || real()->getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &open, &size) != 0)
		return false;
	(void)real()->getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &peek, &size);
	return open != 0 || peek >= 0;
}

void stay_plain(int fd, bool client, uint32_t reason, const union address *peer)
{
	struct sock *s;

	if (device_current() == NULL || !process_is_ours())
		return;
	s = sock_new(SOCK_PLAIN, client);
	if (s == NULL)
		return;
	s->shared->peer = *peer;
	sock_place(s, fd, true);
	settle_plain(s, fd, reason, 0);
	sock_put(s);
}

/* ---- socket ---- */

EXPORT HOT int socket(int domain, int type, int protocol)
{
	int fd = real()->socket(domain, type, protocol);
	enum note note = NOTE_NONE;

	if (fd < 0)
		return fd;
	if ((domain == AF_INET || domain == AF_INET6) && (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_STREAM &&
	    (protocol == 0 || protocol == IPPROTO_TCP))
		note = NOTE_FRESH;
	if (!table_noted(fd, note) && !table_note(fd, note))
		sock_stale(fd, note);
	if (__builtin_expect((unsigned int)fd < TABLE_SIZE && table[fd].more, 0) && process_is_ours() && !hidden_has(fd))
		more_forget(fd); /* the number's last close was not seen */
	return fd;
}

/* ---- connect ---- */

/*
 * Returns 0, or why the connection stays TCP. The mark tells, too, whether it is a TCP socket: one question less where it is. So does the
 * answer that it never had one, which is why it can do without: what is left of an earlier connect would be told to the server.
 */
static uint32_t mark(int fd, const struct device *d, const union address *peer, bool *tcp, bool *unasked)
{
	bool tcp_only = is_tcp_only(fd), shared = table_noted(fd, NOTE_SHARED);
	int err;

	*unasked = !tcp_only && !shared && servers_plain(peer) && (table_noted(fd, NOTE_FRESH) || smcopt_ask(fd) == -ENODATA);
	if (!*unasked)
		plain_not_fresh(fd);
	err = *unasked ? 0 : tcp_only || shared ? -EINVAL : smcopt_mark(fd, d);
	if (shared)
		(void)smcopt_unmark(fd); /* others that have it would not know */
	*tcp = (err != -ENOPROTOOPT && err != -EOPNOTSUPP) || is_tcp(fd);
	switch (err) {
	case 0: return 0;
	case -EINVAL: return SMC_DECL_OPTUNSUPP;
	case -ENODEV: return SMC_DECL_NOSMCDEV;
	default: return SMC_DECL_CNFERR; /* no programs on this host */
	}
}

bool blocks(int fd)
{
	int flags = real()->fcntl(fd, F_GETFL);

	return flags >= 0 && !(flags & O_NONBLOCK);
}

/* Not of one that is plain: the kernel knows whether it blocks. */
static void learn_mode(struct sock *s, int fd)
{
	atomic_store(&s->shared->nonblocking, !blocks(fd));
}

/* Sets that it has been in since before the connect. */
static void adopt_items(struct sock *s, int fd)
{
	epoll_adopt(s, fd);
	for (int i = 0, end = atomic_load(&s->fds) > 1 ? table_end() : 0; i < end; i++)
		if (i != fd && table_has(i) && table_sock(i) == s)
			epoll_adopt(s, i);
}

/* A socket that was marked or need not be, and whose connect has ended well or goes on. */
static int begin(int fd, int result, int buffer, const union address *peer, bool unasked)
{
	bool going_on = result != 0;
	int saved = errno;
	struct sock *s = sock_new(going_on ? SOCK_CONNECTING : SOCK_HANDSHAKE, true);

	if (s == NULL) {
		tcp_reset(fd); /* it was marked, so the server may have been promised SMC */
		errno = ENOMEM;
		return -1;
	}
	atomic_store(&s->shared->buffer, buffer);
	s->shared->peer = *peer;
	s->shared->unasked = unasked;
	sock_place(s, fd, false);
	if (going_on) {
		learn_mode(s, fd);
		adopt_items(s, fd);
		errno = saved;
	} else {
		atomic_store(&s->shared->told, true);
		atomic_store(&s->shared->returned, true);
		lock_take(&s->shared->handshake);
		handshake_connected(s, fd);
		lock_release(&s->shared->handshake);
		if (sock_kind(s) != SOCK_PLAIN) {
			adopt_items(s, fd);
			learn_mode(s, fd);
			(void)handshake_wait(s, fd, READER, now_ns() + settle_ns);
		}
	}
	sock_put(s);
	return result;
}

/* A second connect on a socket that has begun one. */
static int connect_again(struct sock *s, int fd, const struct sockaddr *to, socklen_t size)
{
	int kind = sock_kind(s);

	if (kind == SOCK_CONNECTING && !handshake_drive(s, fd) && sock_kind(s) == SOCK_CONNECTING) {
		int result = real()->connect(fd, to, size);

		if (result != 0)
			return result;
	}
	(void)handshake_drive(s, fd);
	if (sock_kind(s) == SOCK_FAILED && !atomic_exchange(&s->shared->error_told, true)) {
		errno = atomic_load(&s->shared->error);
		return -1;
	}
	atomic_store(&s->shared->told, true);
	if (s->shared->client && !atomic_exchange(&s->shared->returned, true))
		return 0; /* the end of a connect that did not wait, once */
	errno = EISCONN;
	return -1;
}

/* AF_UNSPEC ends a connection by a reset, and its socket can connect again. Where others have it, too, it goes on for them. */
static void disconnect(int fd)
{
	struct sock *s = table_get(fd, true);
	struct linger linger = { 0 };
	socklen_t size = sizeof(linger);

	if (s == NULL)
		return;
	if (sock_kind(s) != SOCK_LISTENER && atomic_load(&s->fds) == 1 && holders_alone(s)) {
		(void)real()->getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size);
		atomic_store(&s->shared->linger_zero, true);
		sock_anew(s);
		(void)real()->setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	}
	sock_put(s);
}

/* Of a socket that is TCP, and was marked or need not be. */
static int connect_ended(int fd, int result, int buffer, const union address *peer, bool unasked)
{
	if (result != 0 && errno != EINPROGRESS && errno != EINTR) {
		servers_said_other(peer);
		return result;
	}
	return begin(fd, result, buffer, peer, unasked);
}

APART static int connect_any(int fd, const struct sockaddr *to, socklen_t size)
{
	union address peer;
	struct device *d;
	struct sock *s;
	uint32_t reason;
	int result, err, buffer;
	bool tcp, unasked;
	struct plain_before before;

	if (to != NULL && size >= sizeof(to->sa_family) && to->sa_family == AF_UNSPEC) {
		if (table_has(fd))
			disconnect(fd);
		else if (table_noted(fd, NOTE_TCP))
			(void)table_swap(fd, NOTE_TCP, NOTE_MADE);
	}
	if (to == NULL || size < sizeof(to->sa_family) || (to->sa_family != AF_INET && to->sa_family != AF_INET6))
		return real()->connect(fd, to, size);
	s = table_get(fd, true);
	if (s != NULL && sock_kind(s) == SOCK_FAILED && atomic_load(&s->shared->error_told)) {
		sock_anew(s); /* TCP lets a socket try again */
		sock_put(s);
		s = NULL;
	}
	if (s != NULL) {
		result = sock_kind(s) == SOCK_PLAIN ? real()->connect(fd, to, size) : connect_again(s, fd, to, size);
		sock_put(s);
		return result;
	}
	d = environment_off() || table_noted(fd, NOTE_TCP) ? NULL : device_current();
	if (d == NULL)
		return real()->connect(fd, to, size);
	peer = address_connected(to, size);
	buffer = buffer_asked(fd);
	before = plain_before();
	reason = mark(fd, d, &peer, &tcp, &unasked);
	result = real()->connect(fd, to, size);
	if (!tcp)
		return result;
	if (reason != 0) {
		err = errno;
		if (result == 0 || err == EINPROGRESS)
			stay_plain(fd, true, reason, &peer);
		errno = err;
		return result;
	}
	if (result == 0 && unasked && !table_noted(fd, NOTE_COPIED) && plain_list(fd, d, true, SMC_DECL_PEERNOSMC, &peer)) {
		plain_again_to(&peer, d, &before);
		return 0;
	}
	return connect_ended(fd, result, buffer, &peer, unasked);
}

/* What goes wrong is not the commonest. */
APART static int not_again(int fd, int result, const struct sockaddr *to, socklen_t size)
{
	union address peer = address_connected(to, size);

	return connect_ended(fd, result, buffer_asked(fd), &peer, true);
}

EXPORT HOT int connect(int fd, const struct sockaddr *to, socklen_t size)
{
	int result;

	if (!plain_may_again(fd, to, size))
		return connect_any(fd, to, size);
	result = real()->connect(fd, to, size);
	if (result != 0)
		return not_again(fd, result, to, size);
	plain_count_again(fd);
	return 0;
}
