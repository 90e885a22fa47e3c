/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>

#include "declined.h"
#include "io.h"
#include "message.h"
#include "real.h"
#include "self.h"
#include "servers.h"
#include "settle.h"
#include "wait.h"

/* How long a write waits for a server's program, and for one that goes on answering others (CLC_WAIT_TIME). */
static const int64_t give_up_ns = INT64_C(500000000), busy_ns = INT64_C(6000000000);

/* How long a close waits for a Proposal: it is sent as soon as the client's connect is over. */
enum { CLOSE_WAIT_MS = 10 };

/* A client that closes reads no answer. */
enum { WAITED = SMC_DECL_TIMEOUT_CL, CLOSES = SMC_DECL_OPTUNSUPP };

void declined_wanted(struct sock *s)
{
	int64_t never = 0;

	if (s->shared->client && atomic_load(&s->shared->wanted) == 0)
		(void)atomic_compare_exchange_strong(&s->shared->wanted, &never, now_ns());
}

int64_t declined_at(const struct sock *s)
{
	const struct shared *sh = s->shared;
	int64_t since = atomic_load(&sh->wanted), answered, at;

	if (since == 0 || sock_kind(s) != SOCK_HANDSHAKE || sh->kernel || has_declined(s))
		return FOREVER;
	if (since < sh->proposed)
		since = sh->proposed;
	answered = servers_taken_up_at(&sh->peer);
	at = (answered > since ? answered : since) + give_up_ns;
	return at < since + busy_ns ? at : since + busy_ns;
}

/* ---- declining ---- */

static void begin(struct sock *s, int fd, uint32_t reason)
{
	note_fallback(s, fd, reason, 0);
	atomic_store(&s->shared->declined, true);
	sock_settled(s, fd); /* not yet, but what is awaited of TCP is another thing now */
}

static bool give_up(struct sock *s, int fd)
{
	struct shared *sh = s->shared;

	if (sock_kind(s) != SOCK_HANDSHAKE || !sh->client || sh->kernel || has_declined(s) || !message_send_decline(fd, WAITED))
		return false;
	begin(s, fd, WAITED);
	return true;
}

bool declined_late(struct sock *s, int fd)
{
	int64_t at = declined_at(s);

	return at != FOREVER && now_ns() >= at && give_up(s, fd);
}

bool declined_at_once(struct sock *s, int fd)
{
	bool can_go;

	if (!atomic_load(&s->shared->writable) || !self_serves(fd))
		return false;
	lock_take(&s->shared->handshake);
	can_go = give_up(s, fd) || has_declined(s) || sock_kind(s) != SOCK_HANDSHAKE;
	lock_release(&s->shared->handshake);
	return can_go;
}

void declined_proposal(struct sock *s, int fd, uint32_t code)
{
	if (message_send_decline(fd, code))
		begin(s, fd, code);
	else
		settle_failed(s, fd, ECONNRESET);
}

bool declined_already(struct sock *s, int fd)
{
	uint32_t code = 0;
	int n = message_take_decline(fd, &code);

	if (n == 0 || n == -EAGAIN)
		return false;
	if (n < 0 && n != -ENODATA)
		settle_failed(s, fd, -n);
	else if (n == 1 && code != CLOSES && !message_send_decline(fd, SMC_DECL_PEERDECL))
		settle_failed(s, fd, ECONNRESET);
	else
		settle_plain(s, fd, SMC_DECL_PEERDECL, code);
	return true;
}

/* ---- the other side's message ---- */

static bool take_answer(struct sock *s, int fd)
{
	unsigned char b[CLC_MAX];
	struct clc_header h;
	int n = message_next(fd, b, &h);

	if (n == 0)
		return false;
	if (n == -ENODATA || (n > 0 && (h.type == CLC_ACCEPT || h.type == CLC_DECLINE)))
		become_plain(s, fd);
	else
		settle_failed(s, fd, n > 0 ? EPROTO : -n);
	return true;
}

/* Whatever comes first shows whether a Decline does. */
static bool take_crossing(struct sock *s, int fd)
{
	uint32_t code;
	int n = message_take_decline(fd, &code);

	if (n == -EAGAIN)
		return false;
	if (n < 0 && n != -ENODATA)
		settle_failed(s, fd, -n);
	else
		become_plain(s, fd);
	return true;
}

bool declined_step(struct sock *s, int fd)
{
	return s->shared->client ? take_answer(s, fd) : take_crossing(s, fd);
}

bool declined_pass(struct sock *s, int fd)
{
	if (!has_declined(s) || sock_kind(s) != SOCK_HANDSHAKE)
		return false;
	if (!declined_step(s, fd) && !s->shared->client)
		become_plain(s, fd);
	return true;
}

/* ---- close ---- */

/* Nothing of the client's stays unread, which would be a reset. To a client that is later still nobody answers: the end is all that it sees. */
static bool refuse(struct sock *s, int fd)
{
	struct pollfd in = { .fd = fd, .events = POLLIN };
	unsigned char b[CLC_MAX];
	struct clc_header h;
	uint32_t code = 0;
	int n;

	(void)real()->poll(&in, 1, CLOSE_WAIT_MS);
	n = message_next(fd, b, &h);
	if (n == 0) {
		(void)real()->shutdown(fd, SHUT_WR);
		return true;
	}
	if (n < 0 || h.type != CLC_PROPOSAL)
		return n == -ENODATA || (n > 0 && h.type == CLC_DECLINE);
	if (message_take_decline(fd, &code) != 1 || code != CLOSES)
		(void)message_send_decline(fd, CLOSES);
	note_fallback(s, fd, CLOSES, 0);
	return true;
}

/* In place of a Confirm, or behind the Proposal. */
static bool leave(struct sock *s, int fd)
{
	unsigned char b[CLC_MAX];
	struct clc_header h;
	int n = message_next(fd, b, &h);

	if (n < 0 || ((n == 0 || h.type != CLC_DECLINE) && !message_send_decline(fd, CLOSES)))
		return false;
	note_fallback(s, fd, CLOSES, 0);
	return true;
}

static bool end_in_order(struct sock *s, int fd)
{
	struct shared *sh = s->shared;

	if (has_declined(s)) {
		(void)declined_step(s, fd);
		return true;
	}
	if (!sh->client)
		return sh->awaits == CLC_PROPOSAL && refuse(s, fd);
	return !sh->kernel && leave(s, fd);
}

/* Otherwise it is reset: the peer must not take what it has of the handshake for a connection. */
void declined_close(struct sock *s, int fd)
{
	static const struct linger zero = { 1, 0 };

	lock_take(&s->shared->handshake);
	if (sock_kind(s) == SOCK_HANDSHAKE && !end_in_order(s, fd))
		(void)real()->setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
	lock_release(&s->shared->handshake);
}

/* ---- shutdown ---- */

enum { SHUTS_READING = 1 << READER, SHUTS_WRITING = 1 << WRITER };

bool declined_has_shut(const struct sock *s, enum side side)
{
	return atomic_load(&s->shared->shut) & 1 << side;
}

/* A client that will write nothing gives up: its server has to hear of the end. A server's program hears when the client comes. */
static void shut_locked(struct sock *s, int fd, int how)
{
	if (how != SHUT_WR)
		atomic_fetch_or(&s->shared->shut, SHUTS_READING);
	if (how == SHUT_RD)
		return;
	(void)give_up(s, fd);
	if (has_declined(s))
		(void)real()->shutdown(fd, SHUT_WR);
	else
		atomic_fetch_or(&s->shared->shut, SHUTS_WRITING);
}

int declined_shutdown(struct sock *s, int fd, int how)
{
	int result = IO_PLAIN;

	lock_take(&s->shared->handshake);
	if (sock_kind(s) == SOCK_HANDSHAKE) {
		shut_locked(s, fd, how);
		result = 0;
	}
	lock_release(&s->shared->handshake);
	return result;
}

void declined_shut(struct sock *s, int fd)
{
	static const int how[] = { -1, SHUT_RD, SHUT_WR, SHUT_RDWR };
	int shut = atomic_load(&s->shared->shut);

	if (shut == 0)
		return;
	if (sock_kind(s) == SOCK_SMC)
		(void)stream_shutdown(&s->stream, how[shut]);
	else
		(void)real()->shutdown(fd, how[shut]);
}
