/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "debug.h"
#include "device.h"
#include "handshake.h"
#include "real.h"
#include "sock.h"
#include "wait.h"

/* In awaits, in place of a message: the end of TCP, since the client's DMB has gone; and for how long. */
enum { AWAITS_END = 0xFF };
static const int64_t end_ns = INT64_C(1000000000);

/* For each message of a client, once the server's program has the connection (CLC_WAIT_TIME). */
static const int64_t clc_ns = INT64_C(6000000000);

short handshake_awaits(const struct sock *s)
{
	return sock_kind(s) == SOCK_CONNECTING ? POLLOUT : POLLIN;
}

/* How long a wait for TCP lasts before somebody looks whether the message is late, or the descriptor closed. */
static const int64_t look_ns = INT64_C(1000000000);

/* How long a client's poll waits for the handshake. */
static const int64_t ready_ns = INT64_C(200000000);

short handshake_ready(const struct sock *s)
{
	const struct shared *sh = s->shared;

	if (sock_kind(s) != SOCK_HANDSHAKE || !sh->client || atomic_load(&sh->told) || now_ns() - sh->proposed < ready_ns)
		return 0;
	return POLLOUT | POLLWRNORM;
}

/* ---- ends ---- */

void settle_plain(struct sock *s, int fd, uint32_t reason, uint32_t diagnosis)
{
	struct shared *sh = s->shared;

	sh->reason = reason;
	sh->diagnosis = diagnosis;
	atomic_store_explicit(&sh->kind, SOCK_PLAIN, memory_order_release);
	if (s->device != NULL)
		count_fallback(s->device->procs, sh->client, reason);
	debug("%s fd %d: TCP: %s%s%s", sh->client ? "client" : "server", fd, smc_decline_name(reason), diagnosis ? ", the peer says " : "",
	      diagnosis ? smc_decline_name(diagnosis) : "");
	sock_settled(s, fd);
}

static void fail(struct sock *s, int fd, int error)
{
	struct shared *sh = s->shared;

	atomic_store(&sh->error, error);
	atomic_store_explicit(&sh->kind, SOCK_FAILED, memory_order_release);
	if (s->device != NULL)
		count_handshake_error(s->device->procs, sh->client);
	if (!s->ended)
		tcp_reset(fd);
	debug("%s fd %d: the handshake failed: %s", sh->client ? "client" : "server", fd, strerror(error));
	sock_settled(s, fd);
}

static bool send_message(int fd, const unsigned char *b, size_t n)
{
	return real()->send(fd, b, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n;
}

static void decline(struct sock *s, int fd, uint32_t code)
{
	unsigned char b[CLC_MAX];

	if (send_message(fd, b, clc_put_decline(b, code)))
		settle_plain(s, fd, code, 0);
	else
		fail(s, fd, ECONNRESET);
}

static void begin_stream(struct sock *s, int fd)
{
	lock_take(&ends_lock);
	if (!s->ended && link_open(&s->link, s->device, s) == 0)
		holders_claim(s);
	lock_release(&ends_lock);
	if (sock_kind(s) != SOCK_SMC) {
		link_abandon(&s->link, false);
		fail(s, fd, ECONNABORTED);
		return;
	}
	debug("%s fd %d: SMC-D, token %016llx, peer token %016llx", s->shared->client ? "client" : "server", fd,
	      (unsigned long long)link_token(&s->link), (unsigned long long)link_peer_token(&s->link));
	sock_settled(s, fd);
}

/* ---- messages ---- */

/*
 * Exactly one message, if all of it is there: what follows it may be the program's. 0: not yet. A client that closes in the middle of
 * one leaves a part that stays.
 */
static int next_message(int fd, unsigned char b[CLC_MAX], struct clc_header *h)
{
	ssize_t n = real()->recv(fd, b, CLC_HEADER, MSG_PEEK | MSG_DONTWAIT);
	struct pollfd end = { .fd = fd, .events = POLLRDHUP };

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	if (n == CLC_HEADER) {
		if (clc_parse_header(b, h) != 0)
			return -EPROTO;
		n = real()->recv(fd, b, h->length, MSG_PEEK | MSG_DONTWAIT);
		if (n == h->length)
			return real()->recv(fd, b, h->length, MSG_DONTWAIT) == n ? (int)n : -EPROTO;
	}
	return real()->poll(&end, 1, 0) > 0 ? -ECONNRESET : 0;
}

/* A Decline in place of another message. */
static bool was_declined(struct sock *s, int fd, const unsigned char *b, int n, const struct clc_header *h, bool *out_of_sync)
{
	uint32_t code;

	if (h->type != CLC_DECLINE)
		return false;
	if (clc_parse_decline(b, (size_t)n, &code, out_of_sync) != 0)
		fail(s, fd, EPROTO);
	else
		settle_plain(s, fd, SMC_DECL_PEERDECL, code);
	return true;
}

/* ---- the client ---- */

static atomic_bool has_proposed;

bool handshake_has_proposed(void)
{
	return atomic_load_explicit(&has_proposed, memory_order_relaxed);
}

static void propose(struct sock *s, int fd)
{
	struct shared *sh = s->shared;
	unsigned char b[CLC_MAX];

	if (device_local(s->device, &sh->sent) != 0 || !sh->sent.active) {
		decline(s, fd, SMC_DECL_NOSMCDEV);
		return;
	}
	if (!send_message(fd, b, clc_put_proposal(b, &sh->sent, procs_id(s->device->procs)))) {
		fail(s, fd, ECONNRESET);
		return;
	}
	atomic_store(&has_proposed, true);
	sh->awaits = CLC_ACCEPT;
	sh->proposed = now_ns();
	sh->deadline = FOREVER; /* the server's program has to run */
	atomic_store_explicit(&sh->kind, SOCK_HANDSHAKE, memory_order_release);
	sock_settled(s, fd); /* not yet, but what is awaited of TCP is another thing now */
}

void handshake_connected(struct sock *s, int fd)
{
	int answer = smcopt_ask(fd);

	if (answer == SMCOPT_SMC || answer == SMCOPT_KERNEL)
		propose(s, fd);
	else if (answer == SMCOPT_PLAIN)
		settle_plain(s, fd, SMC_DECL_PEERNOSMC, 0);
	else
		fail(s, fd, ECONNRESET); /* nobody can tell what the server has been promised */
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
		fail(s, fd, EPROTO);
		return;
	}
	code = clc_check_accept(&s->shared->sent, &accept);
	if (code == 0)
		code = link_connect(&s->link, s->device, &accept, environment_buffer(atomic_load(&s->shared->buffer)), &confirm);
	if (code < 0)
		fail(s, fd, (int)-code);
	else if (code > 0)
		decline(s, fd, (uint32_t)code);
	else if (send_message(fd, out, clc_put_answer(out, &confirm)))
		begin_stream(s, fd);
	else {
		link_abandon(&s->link, false);
		fail(s, fd, ECONNRESET);
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
		fail(s, fd, EPROTO);
		return;
	}
	join_device(s);
	if (s->device == NULL || device_local(s->device, &local) != 0) {
		decline(s, fd, SMC_DECL_NOSMCDEV);
		return;
	}
	memset(&sh->accept, 0, sizeof(sh->accept));
	code = clc_answer_proposal(&p, &local, &sh->accept);
	if (code == 0)
		code = link_serve(&s->link, s->device, p.process, environment_buffer(atomic_load(&sh->buffer)), &sh->accept);
	if (code != 0) {
		decline(s, fd, (uint32_t)code);
		return;
	}
	sh->awaits = CLC_CONFIRM;
	sh->deadline = now_ns() + clc_ns;
	if (!send_message(fd, out, clc_put_answer(out, &sh->accept))) {
		link_abandon(&s->link, false);
		fail(s, fd, ECONNRESET);
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
		begin_stream(s, fd);
		return;
	}
	if (code == -ENOENT) {
		s->shared->awaits = AWAITS_END;
		s->shared->deadline = now_ns() + end_ns;
		return;
	}
	link_abandon(&s->link, false);
	if (code > 0)
		decline(s, fd, (uint32_t)code);
	else
		fail(s, fd, (int)-code);
}

/* A client may have written, closed and exited before this side came to its Confirm. Over TCP that is no error. */
static bool outlive(struct sock *s, int fd)
{
	struct pollfd tcp = { .fd = fd, .events = POLLIN | POLLRDHUP };
	int err = -ENOENT;

	if (real()->poll(&tcp, 1, 0) <= 0 && now_ns() < s->shared->deadline)
		return false;
	if (tcp.revents & (POLLRDHUP | POLLHUP | POLLERR))
		err = link_outlive(&s->link);
	if (err == 0) {
		begin_stream(s, fd);
		if (sock_kind(s) == SOCK_SMC)
			sock_tcp_event(s, fd);
	} else {
		link_abandon(&s->link, false);
		fail(s, fd, -err);
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
	if (sh->awaits == AWAITS_END)
		return outlive(s, fd);
	n = next_message(fd, b, &h);
	if (n == 0 && now_ns() < sh->deadline)
		return false;
	if (n <= 0) {
		if (s->link.group != NULL)
			link_abandon(&s->link, false);
		fail(s, fd, n == 0 ? ETIMEDOUT : -n);
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
	struct clc_proposal p;
	struct clc_header h;
	unsigned char b[CLC_MAX];
	int n;

	while ((n = next_message(fd, b, &h)) == 0 && now_ns() < s->shared->deadline) {
		struct pollfd tcp = { .fd = fd, .events = POLLIN };
		struct timespec left = time_left(s->shared->deadline);

		(void)real()->ppoll(&tcp, 1, &left, NULL);
	}
	if (n <= 0)
		fail(s, fd, n == 0 ? ETIMEDOUT : -n);
	else if (clc_parse_proposal(b, (size_t)n, &p) != 0)
		fail(s, fd, EPROTO);
	else
		decline(s, fd, SMC_DECL_OPTUNSUPP);
}

bool handshake_refuse(struct sock *s, int fd)
{
	int saved = errno;

	lock_take(&s->shared->handshake);
	if (is_unanswered(s))
		refuse_locked(s, fd);
	lock_release(&s->shared->handshake);
	errno = saved;
	return sock_kind(s) == SOCK_PLAIN;
}

int handshake_wait(struct sock *s, int fd, int64_t deadline)
{
	while (!handshake_drive(s, fd)) {
		struct pollfd tcp = { .fd = fd, .events = handshake_awaits(s) };
		int64_t now = now_ns();
		struct timespec left = time_left(deadline < now + look_ns ? deadline : now + look_ns);

		if (now >= deadline)
			return -EAGAIN;
		if (atomic_load(&s->fds) == 0)
			return -EBADF; /* closed by another thread */
		if (real()->ppoll(&tcp, 1, &left, NULL) < 0 && errno == EINTR && signal_interrupts())
			return -EINTR;
	}
	return 0;
}
