/* SPDX-License-Identifier: Apache-2.0 */
/* The peer's flags, and the ends of a connection. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "stream_internal.h"

#define ANY_CLOSE (ISMFS_PEER_CONN_CLOSED | ISMFS_PEER_CONN_ABORT)

void stream_note_error(struct stream *s, int error)
{
	if (!atomic_exchange(&s->state->failed, true))
		atomic_store(&s->state->error, error);
}

/*
 * Tell both directions, and whoever sleeps here, what the machine has come to. Under lock. After the peer's end nothing is missing: no read
 * tells of what comes then, and it is a broken pipe (as with TCP: SOCK_DONE, tcp_reset).
 */
static void changed(struct stream *s)
{
	struct stream_state *st = s->state;
	int fault = st->fault, error = st->machine.error;
	bool ended = (st->machine.rx & (ISMFS_PEER_DONE_WRITING | ISMFS_PEER_CONN_CLOSED)) != 0;

	if (fault != 0)
		stream_note_error(s, fault);
	else if (error != 0)
		stream_note_error(s, error == ECONNRESET && ended ? EPIPE : error);
	atomic_store(&st->read_stop, fault != 0 ? fault : ended ? SMC_EOF : smc_read_stop(&st->machine));
	atomic_store(&st->write_stop, fault != 0 ? fault : smc_write_stop(&st->machine));
	atomic_store(&st->done_writing, (st->machine.tx & (ISMFS_PEER_DONE_WRITING | ANY_CLOSE)) != 0);
}

/* The flags that a step of the machine has added. Under lock. */
static void tell_peer(struct stream *s, int flags)
{
	if (flags != 0) {
		write_consumer_word(s);
		signal_side(s, READER);
		signal_side(s, WRITER);
	}
	changed(s);
}

static void fail_locked(struct stream *s, int error)
{
	struct stream_state *st = s->state;

	if (st->finished)
		return;
	if (st->fault == 0)
		st->fault = error;
	st->spoiled = true;
	tell_peer(s, smc_kill(&st->machine));
}

void stream_fail(struct stream *s, int error)
{
	lock_take(&s->state->lock);
	fail_locked(s, error);
	lock_release(&s->state->lock);
}

/* An abort after the device was switched off is that, whichever of the two is noticed first. Under lock. */
static void received(struct stream *s, uint8_t flags)
{
	struct stream_state *st = s->state;

	if ((flags & ISMFS_PEER_CONN_ABORT) && s->procs != NULL && !procs_epoch_valid(s->procs, s->epoch)) {
		st->spoiled = true;
		tell_peer(s, smc_kill(&st->machine));
		return;
	}
	smc_received(&st->machine, flags);
	if ((flags & ISMFS_PEER_CONN_CLOSED) && stream_unread_by_peer(s) > 0)
		stream_note_error(s, EPIPE); /* written while it closed: the write that stream_refuse takes */
	changed(s);
}

/* Two threads' loads of one word must be accepted in their order, so it is loaded again under the lock. */
void stream_accept_locked(struct stream *s)
{
	struct stream_state *st = s->state;
	uint64_t packed = load_own(s, ISMFS_OFF_CONS); /* before produced: the peer cannot have read what was published later */
	struct cursor produced = word_unpack(atomic_load(&st->produced)).at;
	struct word said = word_unpack(packed);

	if (packed == atomic_load(&st->said))
		return;
	if ((st->seen_state & ~said.state_flags) != 0 || cursor_accept(&st->peer_read, said.at, produced, s->tx_len) != 0) {
		fail_locked(s, EPROTO);
		return;
	}
	atomic_store(&st->said, packed);
	if (said.state_flags != st->seen_state) {
		st->seen_state = said.state_flags;
		received(s, said.state_flags);
	}
}

void stream_accept(struct stream *s)
{
	if (load_own(s, ISMFS_OFF_CONS) == atomic_load(&s->state->said))
		return;
	lock_take(&s->state->lock);
	stream_accept_locked(s);
	lock_release(&s->state->lock);
}

/* ---- telling of it ---- */

int stream_take_error(struct stream *s)
{
	return atomic_exchange(&s->state->error, 0);
}

void stream_tell_again(struct stream *s, int error)
{
	int none = 0;

	(void)atomic_compare_exchange_strong(&s->state->error, &none, error);
}

bool stream_takes(struct stream *s)
{
	struct stream_state *st = s->state;
	int stop;

	stream_accept(s);
	stop = atomic_load(&st->write_stop);
	return stop == 0 || (stop == ECONNRESET && !atomic_load(&st->failed));
}

/*
 * Over TCP the first write to a peer that has closed is taken: its bytes are lost, and only the answer, a reset, makes the next one fail.
 * (The kernel's SMC fails every one, by ECONNRESET.) Programs rely on that: one that answers whoever has not waited, and ends, would be
 * killed by SIGPIPE; one that asks over a connection that has been idle for too long finds the end when it reads, and asks again. And no program
 * of TCP's can take a write that has succeeded for bytes that have arrived. As over TCP, no more is taken than the peer had room for.
 */
ssize_t stream_refuse(struct stream *s, size_t n)
{
	struct stream_state *st = s->state;
	int error = stream_take_error(s);

	if (error != 0)
		return -error;
	if (atomic_load(&st->write_stop) != ECONNRESET || atomic_exchange(&st->failed, true))
		return -EPIPE;
	atomic_store(&st->error, EPIPE);
	return (ssize_t)(n < s->tx_len ? n : s->tx_len);
}

/* ---- shutdown and close ---- */

static bool has_unread(struct stream *s)
{
	struct cursor prod = word_unpack(load_own(s, ISMFS_OFF_PROD)).at, read = word_unpack(atomic_load(&s->state->consumed)).at;

	return !cursor_equal(prod, read);
}

int stream_shutdown(struct stream *s, int how)
{
	struct stream_state *st = s->state;
	int sent = -EINVAL;

	if (how != SHUT_RD)
		lock_take(&st->writing); /* the flag comes after the last byte */
	lock_take(&st->lock);
	if (how == SHUT_RD)
		sent = smc_shutdown_read(&st->machine);
	else if (how == SHUT_WR)
		sent = smc_shutdown_write(&st->machine);
	else if (how == SHUT_RDWR)
		sent = smc_shutdown_both(&st->machine, has_unread(s));
	if (sent >= 0)
		tell_peer(s, sent);
	lock_release(&st->lock);
	if (how != SHUT_RD)
		lock_release(&st->writing);
	return sent < 0 ? sent : 0;
}

bool stream_close(struct stream *s, bool abort)
{
	struct stream_state *st = s->state;
	bool reset;

	lock_take(&st->reading);
	lock_take(&st->writing);
	lock_take(&st->lock);
	stream_accept_locked(s);
	reset = abort || st->spoiled;
	tell_peer(s, smc_close(&st->machine, abort || has_unread(s)));
	st->finished = true;
	lock_release(&st->lock);
	lock_release(&st->writing);
	lock_release(&st->reading);
	return reset;
}

enum stream_end stream_end_of(const struct stream *s)
{
	const struct stream_state *st = s->state;
	bool finished = atomic_load(&st->finished);
	uint8_t heard = st->machine.rx & ANY_CLOSE; /* before the word, which is one way to hear it */
	uint8_t rx, tx = st->machine.tx;

	atomic_thread_fence(memory_order_seq_cst);
	rx = word_unpack(load_own(s, ISMFS_OFF_CONS)).state_flags & ANY_CLOSE;
	if (st->spoiled || (heard != 0 && rx == 0))
		return STREAM_LOST;
	if (finished && rx != 0)
		return (tx & rx & ISMFS_PEER_CONN_CLOSED) && !((tx | rx) & ISMFS_PEER_CONN_ABORT) ? STREAM_OVER : STREAM_LOST;
	return finished || rx != 0 ? STREAM_ENDING : STREAM_GOES_ON;
}

/* The ring as far as it was ever written, and all words but the sequence. */
void stream_reset_own(struct stream *s)
{
	struct cursor prod = word_unpack(load_own(s, ISMFS_OFF_PROD)).at;
	size_t written = s->rx_len;

	if (prod.wrap == 0 && prod.count < s->rx_len && atomic_load(&s->state->bytes_read) < s->rx_len)
		written = prod.count;
	memset(s->own + ISMFS_HEADER, 0, written);
	memset(s->own + ISMFS_OFF_PROD, 0, 8);
	memset(s->own + ISMFS_OFF_CONS, 0, 8);
	memset(s->own + ISMFS_OFF_WAIT, 0, 4);
}

/* ---- ends that the peer's words do not tell ---- */

/* Lost bytes are a reset, none an end. Under lock. */
static uint8_t meaning_of_silence(const struct stream *s)
{
	return stream_unread_by_peer(s) > 0 ? ISMFS_PEER_CONN_ABORT : ISMFS_PEER_CONN_CLOSED;
}

static void peer_gone(struct stream *s, uint8_t flag)
{
	if (!(s->state->machine.rx & ANY_CLOSE))
		received(s, flag);
}

void stream_tcp_ended(struct stream *s, bool reset)
{
	struct stream_state *st = s->state;

	lock_take(&st->lock);
	if (!st->tcp_ended) {
		st->tcp_ended = true;
		st->spoiled = st->spoiled || reset; /* the kernel tells of a reset once */
		stream_accept_locked(s);
		if (st->fault == 0 && !st->finished)
			peer_gone(s, reset ? ISMFS_PEER_CONN_ABORT : meaning_of_silence(s));
	}
	lock_release(&st->lock);
}

void stream_tcp_spoke(struct stream *s)
{
	lock_take(&s->state->lock);
	s->state->tcp_ended = true;
	fail_locked(s, EPROTO);
	lock_release(&s->state->lock);
}

static void kill_locked(struct stream *s)
{
	s->state->spoiled = true;
	if (!s->state->finished)
		tell_peer(s, smc_kill(&s->state->machine));
}

void stream_kill(struct stream *s)
{
	lock_take(&s->state->lock);
	kill_locked(s);
	lock_release(&s->state->lock);
}

/* A failing fstat says nothing: the daemon may be dead, and memory goes on working. */
void stream_check_links(struct stream *s)
{
	struct stream_state *st = s->state;
	struct stat own, peer;

	if (fstat(s->own_fd, &own) != 0 || fstat(s->peer_fd, &peer) != 0)
		return;
	lock_take(&st->lock);
	stream_accept_locked(s); /* after the look: what the peer said before it left counts */
	if (own.st_nlink >= 2)
		st->peer_met = true;
	if (own.st_nlink == 0 || peer.st_nlink == 0)
		kill_locked(s);
	else if ((peer.st_nlink < 2 || (own.st_nlink < 2 && st->peer_met)) && !st->finished)
		peer_gone(s, meaning_of_silence(s));
	lock_release(&st->lock);
}

uint8_t stream_smc_state(struct stream *s, uint8_t *shutdown)
{
	const struct smc_machine *m = &s->state->machine;
	uint8_t state;

	lock_take(&s->state->lock);
	*shutdown = (uint8_t)((m->no_read ? 1 : 0) | (m->tx != 0 ? 2 : 0));
	state = m->state;
	lock_release(&s->state->lock);
	return state;
}

/* ---- counting ---- */

void count_full_read(struct stream *s, size_t have, size_t room)
{
	if (have == s->rx_len)
		count_one(s->procs, COUNT_RX_FULL);
	if (room < have)
		count_one(s->procs, COUNT_RX_SMALL);
}

void count_write(struct stream *s, size_t size, ssize_t done)
{
	count_send_call(s->procs, size, done > 0);
	if (size > s->tx_len) {
		count_one(s->procs, COUNT_TX_SMALL_PEER);
		if (s->peer != NULL)
			count_one(s->procs, COUNT_TX_SMALL);
	}
	if (done == -EAGAIN)
		count_one(s->procs, s->peer != NULL ? COUNT_TX_FULL : COUNT_TX_FULL_PEER);
}
