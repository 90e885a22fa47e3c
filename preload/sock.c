/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "buffer.h"
#include "declined.h"
#include "device.h"
#include "epoll.h"
#include "handshake.h"
#include "inherit.h"
#include "plain.h"
#include "real.h"
#include "self.h"
#include "sock.h"
#include "table.h"

/* Objects are never given back to the C library: a descriptor's entry can be looked at while it goes. */
static struct sock *free_socks;
struct lock ends_lock, free_lock;

static struct sock *object_take(void)
{
	enum { MANY = 64 };
	struct sock *s;

	lock_take(&free_lock);
	if (free_socks == NULL) {
		struct sock *more = calloc(MANY, sizeof(*more));

		for (unsigned int i = 0; more != NULL && i < MANY; i++) {
			more[i].next_free = free_socks;
			free_socks = &more[i];
		}
	}
	s = free_socks;
	if (s != NULL)
		free_socks = s->next_free;
	lock_release(&free_lock);
	return s;
}

struct sock *sock_new(enum kind kind, bool client)
{
	struct sock *s = object_take();
	struct shared *sh = s != NULL ? arena_take() : NULL;

	if (s == NULL)
		return NULL;
	atomic_store(&s->refs, 1);
	if (sh == NULL) {
		sock_put(s);
		return NULL;
	}
	s->shared = sh;
	s->device = device_current();
	memset(&s->link, 0, sizeof(s->link));
	memset(&s->stream, 0, sizeof(s->stream));
	s->items = NULL;
	s->registered = 0;
	s->ended = false;
	s->last = false;
	s->tcp = -1;
	s->waits_for_server = false;
	s->elsewhere = false;
	s->held = true;
	s->forks = 0;
	s->waiters[READER] = s->waiters[WRITER] = 0;
	s->spinning = (struct spinning){ 0 };
	holders_begin(s);
	atomic_store(&sh->bell_listens, 0);
	atomic_store(&sh->bell_others, 0);
	atomic_store(&sh->receive_limit, -1);
	atomic_store(&sh->send_limit, -1);
	sh->client = client;
	atomic_store(&s->fds, 1);
	atomic_fetch_add(&s->refs, 1);
	atomic_store_explicit(&sh->kind, kind, memory_order_release);
	return s;
}

void shared_undescribe(struct shared *sh, const struct device *d)
{
	if (d != NULL && sh->slot != 0 && sh->described == d->process)
		slot_free(d->procs, sh->slot);
	sh->slot = 0;
}

static void give_back(struct sock *s)
{
	if (sock_kind(s) == SOCK_SMC) {
		link_end(s);
		return;
	}
	if (s->link.group != NULL) /* a handshake, perhaps one that only the parent has gone on with */
		link_abandon(&s->link, false);
	if (s->last)
		shared_undescribe(s->shared, s->device);
	if (s->held && (s->last || !link_left(s)))
		holders_leave(s->shared, s->place, s->last);
}

HOT void sock_put(struct sock *s)
{
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (s->ended)
		give_back(s);
	lock_take(&free_lock);
	s->next_free = free_socks;
	free_socks = s;
	lock_release(&free_lock);
}

/* ---- description ---- */

/* What TCP says is its own and its peer's, once: neither changes. A listener's own does, with its bind. */
static void learn_addresses(struct shared *sh, int fd, bool listener)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);

	if ((listener || !address_known(&sh->local)) && getsockname(fd, (struct sockaddr *)&a, &size) == 0)
		sh->local = address_of((struct sockaddr *)&a, size);
	size = sizeof(a);
	if (!listener && !address_known(&sh->peer) && getpeername(fd, (struct sockaddr *)&a, &size) == 0)
		sh->peer = address_of((struct sockaddr *)&a, size);
}

void sock_describe(struct sock *s, int fd)
{
	unsigned char b[SLOT_SIZE] = { 0 };
	struct shared *sh = s->shared;
	int kind = sock_kind(s);
	uint32_t link = link_id(&s->link);
	uint64_t own = link_token(&s->link), other = link_peer_token(&s->link);
	bool six;

	if (sh->inode == 0) { /* also for who looks a descriptor up by it (exec.c) */
		struct stat st;

		sh->inode = fstat(fd, &st) == 0 ? st.st_ino : 0;
	}
	if (s->device == NULL)
		return;
	if (sh->slot == 0) {
		sh->slot = slot_take(s->device->procs);
		sh->described = s->device->process;
	}
	if (sh->slot == 0)
		return;
	learn_addresses(sh, fd, kind == SOCK_LISTENER);
	six = !address_is_four(&sh->local) || !address_is_four(&sh->peer) || (kind == SOCK_LISTENER && sh->local.any.sa_family == AF_INET6);
	b[SLOT_KIND] = kind == SOCK_LISTENER ? 2 : 1;
	b[SLOT_ROLE] = kind == SOCK_LISTENER ? 0 : sh->client ? ROLE_CLIENT : ROLE_SERVER;
	if (has_declined(s))
		kind = SOCK_PLAIN;
	b[SLOT_MODE] = kind == SOCK_SMC ? 2 : kind == SOCK_PLAIN ? 1 : 0;
	b[SLOT_STATE] = kind == SOCK_LISTENER ? SMC_LISTEN : kind == SOCK_SMC ? stream_smc_state(&s->stream, &b[SLOT_SHUTDOWN]) :
			kind == SOCK_PLAIN ? SMC_ACTIVE : SMC_INIT;
	b[SLOT_FAMILY] = six ? 6 : 4;
	address_put(b, SLOT_LOCAL, SLOT_LOCAL_PORT, &sh->local, six);
	address_put(b, SLOT_PEER, SLOT_PEER_PORT, &sh->peer, six);
	memcpy(b + SLOT_TOKEN, &own, 8);
	memcpy(b + SLOT_PEER_TOKEN, &other, 8);
	memcpy(b + SLOT_LINK, &link, 4);
	memcpy(b + SLOT_REASON, &sh->reason, 4);
	memcpy(b + SLOT_DIAGNOSIS, &sh->diagnosis, 4);
	memcpy(b + SLOT_INODE, &sh->inode, 8);
	slot_write(s->device->procs, sh->slot, b);
}

void sock_settled(struct sock *s, int fd)
{
	int kind = sock_kind(s);

	if (kind == SOCK_PLAIN || kind == SOCK_FAILED)
		inherit_unmark(s, fd);
	if (kind != SOCK_HANDSHAKE)
		self_waits_no_more(s);
	sock_describe(s, fd);
	if (!process_is_ours())
		return; /* a child of vfork has other descriptors than its parent, who sees by the kind what has become of it */
	if (kind == SOCK_PLAIN && atomic_load(&s->fds) == 1)
		table_set(fd, s, true);
	else if (kind == SOCK_PLAIN && !s->ended)
		for (int i = 0, end = table_end(); i < end; i++) {
			uintptr_t entry = table_entry(i);

			if (entry == (uintptr_t)s)
				table_set(i, s, true);
		}
	epoll_settled(s);
}

/* ---- the end ---- */

static void linger_zero(int fd)
{
	struct linger zero = { 1, 0 };

	(void)real()->setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof(zero));
}

/* One descriptor fewer; true: it was the last one of this process. ends_lock is held. */
static bool count_out(struct sock *s)
{
	if (atomic_fetch_sub(&s->fds, 1) != 1)
		return false;
	s->last = holders_close(s);
	s->ended = true;
	return true;
}

void sock_discard(struct sock *s)
{
	lock_take(&ends_lock);
	(void)count_out(s);
	lock_release(&ends_lock);
	sock_put(s);
	sock_put(s);
}

/* What a descriptor was; NULL: nothing. ended: it was the last one of this process. */
static struct sock *take_out(int fd, bool *ended)
{
	struct sock *s;

	*ended = false;
	lock_take(&ends_lock);
	s = table_take(fd);
	if (s != NULL)
		*ended = count_out(s);
	lock_release(&ends_lock);
	return s;
}

/* Threads that wait on the connection are told. */
static void release(struct sock *s, int fd)
{
	struct shared *sh = s->shared;
	int kind = sock_kind(s);

	self_waits_no_more(s);
	if (kind == SOCK_LISTENER && sh->passed && s->last)
		(void)smcopt_unmark(fd); /* who takes the next client may know nothing of SMC */
	if (kind == SOCK_HANDSHAKE && s->last)
		declined_close(s, fd);
	if (kind != SOCK_SMC)
		return;
	if (s->last) {
		shared_undescribe(sh, s->device);
		if (stream_close(&s->stream, atomic_load(&sh->linger_zero)))
			linger_zero(fd);
		else
			link_shut(s, fd);
	} else {
		stream_confirm(&s->stream); /* others may be killed and say no last word: bytes that the peer counts as lost would be a reset */
	}
	if (s->waiters[READER] + s->waiters[WRITER] > 0)
		stream_rouse(&s->stream);
	link_leave_page(&s->link);
}

bool sock_drop(int fd)
{
	struct sock *s = table_moves(fd) ? table_get(fd, false) : NULL;
	bool ended;

	if (s != NULL) {
		if (sock_kind(s) == SOCK_HANDSHAKE && atomic_load(&s->fds) == 1 && holders_alone(s)) /* else a child may be meant to have it */
			handshake_last(s, fd);
		sock_put(s);
	}
	s = take_out(fd, &ended);
	if (s == NULL)
		return false;
	epoll_forget(s, fd);
	if (ended)
		release(s, fd);
	sock_put(s);
	return true;
}

void sock_stale(int fd, enum note note)
{
	struct sock *s;
	bool ended;

	if (!process_is_ours())
		return;
	s = take_out(fd, &ended);
	(void)table_note(fd, note);
	if (s == NULL)
		return;
	epoll_forget(s, fd);
	if (ended)
		release(s, -1);
	sock_put(s);
}

/* One more number, in place of what it was. Under the lock that whoever closes takes: what is counted is what is there. */
static bool add_number(struct sock *s, int fd, uintptr_t was, bool plain)
{
	bool added;

	lock_take(&ends_lock);
	added = !s->ended && table_swap(fd, was, (uintptr_t)s | (plain ? TABLE_PLAIN : 0));
	if (added) {
		atomic_fetch_add(&s->fds, 1);
		atomic_fetch_add(&s->refs, 1);
	}
	lock_release(&ends_lock);
	return added;
}

/* Those that were copied before there was a sock. */
static void find_copies(struct sock *s, int fd, bool plain)
{
	struct stat own, other;

	if (fstat(fd, &own) != 0)
		return;
	for (int i = 0, end = table_end(); i < end; i++)
		if (table_noted(i, NOTE_COPIED) && fstat(i, &other) == 0 && other.st_ino == own.st_ino && other.st_dev == own.st_dev)
			(void)add_number(s, i, NOTE_COPIED, plain);
}

void sock_place(struct sock *s, int fd, bool plain)
{
	if (table_set(fd, s, plain) == NOTE_COPIED)
		find_copies(s, fd, plain);
}

void sock_anew(struct sock *s)
{
	enum note note = !holders_alone(s) ? NOTE_SHARED : atomic_load(&s->fds) > 1 ? NOTE_COPIED : NOTE_MADE;

	for (int i = 0, end = table_end(); i < end; i++)
		if (table_has(i) && table_sock(i) == s) {
			sock_drop(i);
			(void)table_swap(i, NOTE_NONE, note);
		}
}

/* Of a socket that is no connection yet. The new number first: who connects by the old one meanwhile looks for it. */
static bool alias_made(int from, int to)
{
	enum note note = table_noted(from, NOTE_SHARED) || (unsigned int)to >= TABLE_SIZE ? NOTE_SHARED : NOTE_COPIED;
	uintptr_t entry = table_entry(from);

	if (!is_note(entry) || entry == NOTE_NONE || entry == NOTE_TCP || !process_is_ours())
		return false;
	if (!table_note(to, note))
		sock_stale(to, note);
	return plain_spread(from, note);
}

void sock_alias(int from, int to)
{
	struct sock *s;
	uintptr_t entry, was;

	if ((unsigned int)from >= TABLE_SIZE) {
		plain_unknown(to);
		return;
	}
	if (alias_made(from, to))
		return;
	if (table_noted(from, NOTE_TCP) && process_is_ours())
		plain_keep(from);
	entry = table_entry(from);
	s = !is_note(entry) ? table_get(from, true) : NULL;
	if (s == NULL) {
		plain_unknown(to);
		if (process_is_ours())
			epoll_copied(from, to);
		return;
	}
	if ((unsigned int)to < TABLE_SIZE && process_is_ours()) {
		table_reach_to(to);
		do
			was = table_entry(to);
		while ((was & ~(uintptr_t)TABLE_PLAIN) != (uintptr_t)s && !add_number(s, to, was, entry & TABLE_PLAIN) && !s->ended);
	}
	sock_put(s);
}

/* ---- the peer's life ---- */

void tcp_reset(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	(void)real()->connect(fd, &none, sizeof(none));
}

/* TCP is idle: anything there is its end, or a byte that breaks the contract. */
void sock_tcp_event(struct sock *s, int fd)
{
	char byte;
	int saved = errno;
	ssize_t n;

	if (s->shared->stream.tcp_ended || atomic_load(&s->fds) == 0)
		return;
	n = real()->recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		stream_tcp_spoke(&s->stream);
	else if (n == 0)
		stream_tcp_ended(&s->stream, false);
	else if (errno != EAGAIN && errno != EINTR)
		stream_tcp_ended(&s->stream, true);
	errno = saved;
}

void sock_check(struct sock *s, int fd)
{
	uint32_t word = atomic_load(procs_word(s->stream.procs));
	int saved = errno;

	sock_tcp_event(s, fd);
	if (word != s->heard) {
		s->heard = word;
		if (!procs_epoch_valid(s->stream.procs, s->stream.epoch))
			stream_kill(&s->stream);
		else
			stream_check_links(&s->stream);
	}
	errno = saved;
}
