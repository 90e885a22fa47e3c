/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "debug.h"
#include "declined.h"
#include "device.h"
#include "handshake.h"
#include "message.h"
#include "real.h"
#include "self.h"
#include "servers.h"
#include "settle.h"
#include "sock.h"
#include "wait.h"

/* In awaits, in place of a message: the end of TCP, since the client's DMB has gone; and for how long. */
enum { AWAITS_END = 0xFF };
static const int64_t end_ns = INT64_C(1000000000);

/* How long handing on a connection waits for the client's Proposal (CLC_WAIT_TIME). */
static const int64_t clc_ns = INT64_C(6000000000);

short handshake_awaits(const struct sock *s, short events)
{
	if (sock_kind(s) == SOCK_CONNECTING)
		return POLLOUT;
	return POLLIN | (has_declined(s) ? events & (POLLOUT | POLLWRNORM) : 0);
}

/* A server waits for what the kernel tells of. */
bool handshake_hurries(const struct sock *s)
{
	int kind = sock_kind(s);

	if (kind == SOCK_HANDSHAKE && !s->shared->client)
		return s->shared->awaits == AWAITS_END;
	return kind == SOCK_CONNECTING || (kind == SOCK_HANDSHAKE && !has_declined(s));
}

/* How long a wait for TCP lasts before somebody looks whether the message is late, or the descriptor closed. */
static const int64_t look_ns = INT64_C(1000000000);
/* The same where clients of this process wait for others, whose answers nobody else looks for. */
static const int64_t own_ns = INT64_C(100000000);

/* How long a client's poll waits for the handshake. */
static const int64_t ready_ns = INT64_C(200000000);

short handshake_ready(struct sock *s, int fd, short events)
{
	struct pollfd out = { .fd = fd, .events = POLLOUT | POLLWRNORM };
	struct shared *sh = s->shared;
	short ready = declined_has_shut(s, READER) ? POLLIN | POLLRDNORM | POLLRDHUP : 0;

	if (sock_kind(s) != SOCK_HANDSHAKE)
		return 0;
	if (has_declined(s))
		return real()->poll(&out, 1, 0) > 0 ? ready | out.revents : ready;
	if (atomic_load(&sh->told) && (events & out.events))
		declined_wanted(s);
	if (!sh->client || sh->kernel || atomic_load(&sh->told) || now_ns() - sh->proposed < ready_ns)
		return ready;
	if (events & out.events)
		atomic_store(&sh->writable, true);
	return ready | out.events;
}

static void decline(struct sock *s, int fd, uint32_t code)
{
	if (message_send_decline(fd, code))
		settle_plain(s, fd, code, 0);
	else
		settle_failed(s, fd, ECONNRESET);
}

/* A Decline in place of another message. */
static bool was_declined(struct sock *s, int fd, const unsigned char *b, int n, const struct clc_header *h, bool *out_of_sync)
{
	uint32_t code;

	if (h->type != CLC_DECLINE)
		return false;
	if (clc_parse_decline(b, (size_t)n, &code, out_of_sync) != 0)
		settle_failed(s, fd, EPROTO);
	else
		settle_plain(s, fd, SMC_DECL_PEERDECL, code);
	return true;
}

/* ---- the client ---- */

static void propose(struct sock *s, int fd)
{
	struct shared *sh = s->shared;
	unsigned char b[CLC_MAX];

	if (s->device == NULL || device_local(s->device, &sh->sent) != 0 || !sh->sent.active) { /* NULL: it has gone since connect began */
		decline(s, fd, SMC_DECL_NOSMCDEV);
		return;
	}
	if (!message_send(fd, b, clc_put_proposal(b, &sh->sent, procs_id(s->device->procs)))) {
		settle_failed(s, fd, ECONNRESET);
		return;
	}
	self_waits(s);
	sh->awaits = CLC_ACCEPT;
	sh->proposed = now_ns();
	atomic_store_explicit(&sh->kind, SOCK_HANDSHAKE, memory_order_release);
	sock_settled(s, fd); /* not yet, but what is awaited of TCP is another thing now */
}

static int ask(const struct sock *s, int fd)
{
	int answer;

	if (s->shared->unasked)
		return SMCOPT_PLAIN;
	answer = smcopt_ask(fd);
	if (answer == SMCOPT_PLAIN)
		servers_said_plain(&s->shared->peer);
	else
		servers_said_other(&s->shared->peer);
	return answer;
}

void handshake_connected(struct sock *s, int fd)
{
	int answer = ask(s, fd);
	bool promised = answer == SMCOPT_SMC || answer == SMCOPT_KERNEL;

	s->shared->kernel = answer == SMCOPT_KERNEL;
	if (promised && !message_ended(fd)) /* else it would answer by a reset, which the program would see */
		propose(s, fd);
	else if (promised || answer == SMCOPT_PLAIN)
		settle_plain(s, fd, SMC_DECL_PEERNOSMC, 0);
	else
		settle_failed(s, fd, ECONNRESET); /* nobody can tell what the server has been promised */
}

/* A connect that did not wait: has it ended? */
static bool connecting(struct sock *s, int fd)
{
	struct pollfd out = { .fd = fd, .events = POLLOUT };
	int error = 0;
	socklen_t size = sizeof(error);

	if (real()->poll(&out, 1, 0) <= 0)
		return false;
	if (real()->getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
		servers_said_other(&s->shared->peer);
		atomic_store(&s->shared->error, error != 0 ? error : ECONNABORTED);
		atomic_store_explicit(&s->shared->kind, SOCK_FAILED, memory_order_release);
		sock_settled(s, fd);
		return true;
	}
	handshake_connected(s, fd);
	return true;
}

static void accepted(struct sock *s, int fd, const unsigned char *b, size_t n)
{
	struct clc_answer accept, confirm = { 0 };
	unsigned char out[CLC_MAX];
	int64_t code;

	if (clc_parse_answer(b, n, &accept) != 0 || accept.type != CLC_ACCEPT) {
		settle_failed(s, fd, EPROTO);
		return;
	}
	servers_took_up(&s->shared->peer);
	code = clc_check_accept(&s->shared->sent, &accept);
	if (code == 0)
		code = link_connect(&s->link, s->device, &accept, s->shared->proposed, environment_buffer(atomic_load(&s->shared->buffer)),
				    &confirm);
	if (code < 0)
		settle_failed(s, fd, (int)-code);
	else if (code > 0)
		decline(s, fd, (uint32_t)code);
	else if (message_send(fd, out, clc_put_answer(out, &confirm)))
		settle_smc(s, fd);
	else {
		link_abandon(&s->link, false);
		settle_failed(s, fd, ECONNRESET);
	}
}

/* ---- the server ---- */

/* The device may be new, and after a fork the child's own: the description moves there. */
static void join_device(struct sock *s)
{
	struct device *now = device_current();

	if (now == s->device)
		return;
	if (s->device != NULL)
		slot_free(s->device->procs, s->shared->slot);
	s->shared->slot = 0;
	s->device = now;
}

static void proposed(struct sock *s, int fd, const unsigned char *b, size_t n)
{
	struct shared *sh = s->shared;
	struct clc_proposal p;
	struct clc_local local;
	unsigned char out[CLC_MAX];
	int64_t code;

	if (clc_parse_proposal(b, n, &p) != 0) {
		settle_failed(s, fd, EPROTO);
		return;
	}
	join_device(s);
	if (declined_already(s, fd))
		return;
	if (s->device == NULL || device_local(s->device, &local) != 0) {
		declined_proposal(s, fd, SMC_DECL_NOSMCDEV);
		return;
	}
	memset(&sh->accept, 0, sizeof(sh->accept));
	code = clc_answer_proposal(&p, &local, &sh->accept);
	if (code == 0)
		code = link_serve(&s->link, s->device, p.process, environment_buffer(atomic_load(&sh->buffer)), &sh->accept);
	if (code != 0) {
		declined_proposal(s, fd, (uint32_t)code);
		return;
	}
	sh->awaits = CLC_CONFIRM; /* whenever the client's program comes */
	if (!message_send(fd, out, clc_put_answer(out, &sh->accept))) {
		link_abandon(&s->link, false);
		settle_failed(s, fd, ECONNRESET);
	}
}

/* The client has its connection already: after an error only a reset is left (reference 1.10). */
static void confirmed(struct sock *s, int fd, const unsigned char *b, size_t n)
{
	struct clc_answer confirm;
	int64_t code = -EPROTO;

	if (clc_parse_answer(b, n, &confirm) == 0 && confirm.type == CLC_CONFIRM)
		code = clc_check_confirm(&s->shared->accept, &confirm);
	if (code == 0)
		code = link_confirmed(&s->link, s->device, &confirm);
	if (code == 0) {
		settle_smc(s, fd);
		return;
	}
	if (code == -ENOENT) {
		s->shared->awaits = AWAITS_END;
		s->shared->end_by = now_ns() + end_ns;
		return;
	}
	link_abandon(&s->link, false);
	if (code > 0)
		decline(s, fd, (uint32_t)code);
	else
		settle_failed(s, fd, (int)-code);
}

/* A client may have written, closed and exited before this side came to its Confirm. Over TCP that is no error. */
static bool outlive(struct sock *s, int fd)
{
	bool ended = message_ended(fd);
	int err = -ENOENT;

	if (!ended && message_unread(fd) == 0 && now_ns() < s->shared->end_by)
		return false;
	if (ended)
		err = link_outlive(&s->link);
	if (err == 0) {
		settle_smc(s, fd);
		if (sock_kind(s) == SOCK_SMC)
			sock_tcp_event(s, fd);
	} else {
		link_abandon(&s->link, false);
		settle_failed(s, fd, -err);
	}
	return true;
}

/* ---- steps ---- */

/* Does the next step, if what it needs is there. */
static bool step(struct sock *s, int fd)
{
	struct shared *sh = s->shared;
	unsigned char b[CLC_MAX];
	struct clc_header h;
	bool out_of_sync = false;
	int n;

	if (sock_kind(s) == SOCK_CONNECTING)
		return connecting(s, fd);
	if ((sh->awaits == CLC_CONFIRM && s->link.group == NULL) || (sh->awaits == AWAITS_END && s->link.lost == 0)) {
		atomic_store(&s->elsewhere, true); /* another process has answered, or the Confirm */
		return true;
	}
	if (sh->awaits == AWAITS_END)
		return outlive(s, fd);
	if (has_declined(s))
		return declined_step(s, fd);
	n = message_next(fd, b, &h);
	if (n == 0)
		return declined_late(s, fd);
	if (n == -ENODATA && sh->awaits != CLC_CONFIRM) {
		settle_plain(s, fd, SMC_DECL_PEERNOSMC, 0); /* it has closed before it said anything: over TCP no error */
		return true;
	}
	if (n < 0) {
		if (s->link.group != NULL)
			link_abandon(&s->link, false);
		settle_failed(s, fd, n == -ENODATA ? ECONNRESET : -n);
		return true;
	}
	if (was_declined(s, fd, b, n, &h, &out_of_sync)) {
		if (s->link.group != NULL)
			link_abandon(&s->link, out_of_sync);
		return true;
	}
	if (sh->awaits == CLC_ACCEPT)
		accepted(s, fd, b, (size_t)n);
	else if (sh->awaits == CLC_PROPOSAL)
		proposed(s, fd, b, (size_t)n);
	else
		confirmed(s, fd, b, (size_t)n);
	return true;
}

static bool is_settled(const struct sock *s)
{
	int kind = sock_kind(s);

	return kind != SOCK_CONNECTING && kind != SOCK_HANDSHAKE;
}

bool handshake_drive(struct sock *s, int fd)
{
	int saved = errno;

	if (is_settled(s))
		return true;
	lock_take(&s->shared->handshake);
	while (!is_settled(s) && step(s, fd))
		;
	lock_release(&s->shared->handshake);
	errno = saved;
	return is_settled(s);
}

static bool is_unanswered(const struct sock *s)
{
	return sock_kind(s) == SOCK_HANDSHAKE && !s->shared->client && s->shared->awaits == CLC_PROPOSAL;
}

static void refuse_locked(struct sock *s, int fd)
{
	int64_t deadline = now_ns() + clc_ns;
	struct clc_proposal p;
	struct clc_header h;
	unsigned char b[CLC_MAX];
	int n;

	while ((n = message_next(fd, b, &h)) == 0 && now_ns() < deadline) {
		struct pollfd tcp = { .fd = fd, .events = POLLIN };
		struct timespec left = time_left(deadline);

		(void)real()->ppoll(&tcp, 1, &left, NULL);
	}
	if (n <= 0)
		settle_failed(s, fd, n == 0 ? ETIMEDOUT : n == -ENODATA ? ECONNRESET : -n);
	else if (clc_parse_proposal(b, (size_t)n, &p) != 0)
		settle_failed(s, fd, EPROTO);
	else if (!declined_already(s, fd))
		decline(s, fd, SMC_DECL_OPTUNSUPP);
}

bool handshake_refuse(struct sock *s, int fd)
{
	int saved = errno;

	lock_take(&s->shared->handshake);
	if (!declined_pass(s, fd) && is_unanswered(s))
		refuse_locked(s, fd);
	lock_release(&s->shared->handshake);
	errno = saved;
	return sock_kind(s) == SOCK_PLAIN;
}

void handshake_last(struct sock *s, int fd)
{
	struct shared *sh = s->shared;

	lock_take(&sh->handshake);
	while (sock_kind(s) == SOCK_HANDSHAKE && sh->awaits == CLC_CONFIRM && step(s, fd))
		;
	lock_release(&sh->handshake);
}

bool handshake_lets(struct sock *s, int fd, enum side side)
{
	bool own = !s->shared->client && self_has_clients(); /* before: one that ends now has sent its Confirm */

	if (handshake_drive(s, fd) || (side == WRITER && has_declined(s)))
		return true;
	if (!own)
		return false;
	self_drive();
	return handshake_drive(s, fd);
}

int handshake_wait(struct sock *s, int fd, enum side side, int64_t deadline)
{
	struct signals since = signals_now();
	int err = 0;

	while (!handshake_lets(s, fd, side)) {
		struct pollfd tcp = { .fd = fd, .events = handshake_awaits(s, 0) };
		bool own = !s->shared->client && self_has_clients();
		int64_t now = now_ns(), until = now + (own ? own_ns : look_ns), late = declined_at(s);
		struct timespec left;

		if (signals_end(since, false, err))
			return -EINTR;
		if (now >= deadline)
			return -EAGAIN;
		if (atomic_load(&s->fds) == 0)
			return -EBADF; /* closed by another thread */
		until = deadline < until ? deadline : until;
		left = time_left(late < until ? late : until);
		err = real()->ppoll(&tcp, 1, &left, NULL) < 0 ? errno : 0;
	}
	return 0;
}
