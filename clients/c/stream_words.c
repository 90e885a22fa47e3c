/* SPDX-License-Identifier: Apache-2.0 */
/* The words of the two headers: mine, which the peer writes, and the peer's. Signals are sent from here and nowhere else. */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "stream_internal.h"

static _Atomic uint64_t *word_at(unsigned char *map, size_t offset)
{
	return (_Atomic uint64_t *)(void *)(map + offset);
}

static _Atomic uint8_t *wait_field(unsigned char *map, enum side side)
{
	return (_Atomic uint8_t *)(void *)(map + ISMFS_OFF_WAIT + side);
}

uint64_t load_own(const struct stream *s, size_t offset)
{
	return atomic_load_explicit(word_at(s->own, offset), memory_order_acquire);
}

/* The store releases what was written before it; a full fence follows, for the look at the wait state. */
static void put_word(struct stream *s, size_t offset, uint64_t word)
{
	int err;

	if (s->peer != NULL) {
		atomic_store(word_at(s->peer, offset), word);
		atomic_thread_fence(memory_order_seq_cst);
		return;
	}
	err = pwrite_all(s->peer_fd, &word, sizeof(word), offset);
	atomic_thread_fence(memory_order_seq_cst);
	if (err != 0) {
		s->state->fault = -err;
		stream_note_error(s, -err);
		atomic_store(&s->state->read_stop, -err);
		atomic_store(&s->state->write_stop, -err);
	}
}

void put_type(struct stream *s)
{
	unsigned char word[8] = { ISMFS_TYPE_DMB };

	if (s->peer != NULL)
		s->peer[ISMFS_OFF_TYPE] = ISMFS_TYPE_DMB;
	else
		(void)!pwrite(s->peer_fd, word, sizeof(word), ISMFS_OFF_TYPE);
}

static int put_piece(struct stream *s, const unsigned char *from, size_t n, uint32_t at)
{
	if (s->peer == NULL)
		return pwrite_all(s->peer_fd, from, n, ISMFS_HEADER + (size_t)at);
	ring_fill(s->peer + ISMFS_HEADER + at, from, n);
	return 0;
}

int put_bytes(struct stream *s, const unsigned char *from, size_t n, uint32_t at)
{
	size_t first = s->tx_len - at;
	int err;

	if (first > n)
		first = n;
	err = put_piece(s, from, first, at);
	if (err == 0 && n > first)
		err = put_piece(s, from + first, n - first, 0);
	return err;
}

void publish_producer_word(struct stream *s)
{
	uint64_t word = word_pack((struct word){ .at = s->state->tx_prod });

	atomic_store(&s->state->produced, word);
	put_word(s, ISMFS_OFF_PROD, word);
}

/* The reader's cursor, the writer's flags, the closing flags. The word that said closed or aborted is the last one. */
void write_consumer_word(struct stream *s)
{
	struct stream_state *st = s->state;
	struct word last = word_unpack(atomic_load(&st->confirmed));
	struct word next = word_unpack(atomic_load(&st->consumed));
	uint64_t word;

	if (st->finished || (last.state_flags & (ISMFS_PEER_CONN_CLOSED | ISMFS_PEER_CONN_ABORT)))
		return;
	next.producer_flags = st->flags;
	next.state_flags = st->machine.tx;
	word = word_pack(next);
	atomic_store(&st->confirmed, word);
	put_word(s, ISMFS_OFF_CONS, word);
}

void publish_cursor(struct stream *s)
{
	lock_take(&s->state->lock);
	write_consumer_word(s);
	lock_release(&s->state->lock);
}

/* Both sides of the peer must hear that more is to come: each can be asleep with a cursor held back. */
void set_write_blocked(struct stream *s, bool blocked)
{
	struct stream_state *st = s->state;

	if (st->blocked == blocked)
		return;
	st->blocked = blocked;
	lock_take(&st->lock);
	st->flags = blocked ? ISMFS_WRITE_BLOCKED : 0;
	write_consumer_word(s);
	lock_release(&st->lock);
	signal_side(s, WRITER);
	if (blocked)
		signal_side(s, READER);
}

_Atomic uint32_t *stream_sequence(const struct stream *s)
{
	return (_Atomic uint32_t *)(void *)(s->own + ISMFS_OFF_SEQ);
}

void stream_rouse(struct stream *s)
{
	atomic_fetch_add(stream_sequence(s), 1);
	futex_wake_all(stream_sequence(s), true);
	bell_ring(s->own_bell);
}

/*
 * Wake a side of the peer if it sleeps; the caller has published, and a full fence is behind it. Whoever clears the field owes the
 * wake-up.
 */
void signal_side(struct stream *s, enum side side)
{
	_Atomic uint8_t *field = wait_field(s->own, side);
	uint8_t how = atomic_load_explicit(field, memory_order_relaxed);

	if (how == ISMFS_AWAKE || !atomic_compare_exchange_strong(field, &how, ISMFS_AWAKE))
		return;
	if (how == ISMFS_SLEEPS_ON_FUTEX && s->peer != NULL) {
		_Atomic uint32_t *seq = (_Atomic uint32_t *)(void *)(s->peer + ISMFS_OFF_SEQ);

		atomic_fetch_add(seq, 1);
		futex_wake_all(seq, true);
	} else if (how == STREAM_ON_PAGE && s->peer_page != NULL) {
		page_ring(s->peer_page, s->peer_bit);
	} else {
		bell_ring(s->peer_bell); /* also where the peer must not wait as it says */
	}
}

/*
 * In copy mode both fields travel in one word, from my own copy: writing "asleep" over a field that the owner just cleared costs one signal
 * too many, and its clearing is followed by a signal anyway.
 */
static void announce_by_write(struct stream *s, enum side side, uint8_t how)
{
	struct stream_state *st = s->state;

	st->waits[side] = how;
	uint8_t word[4] = { st->waits[READER], st->waits[WRITER], 0, 0 };
	(void)pwrite_all(s->peer_fd, word, sizeof(word), ISMFS_OFF_WAIT); /* an error shows at the next word */
}

/* Under the lock, since after the closing word the peer may use its DMB for another connection. */
void stream_announce(struct stream *s, enum side side, uint8_t how)
{
	lock_take(&s->state->lock);
	if (!s->state->finished && s->peer != NULL)
		atomic_store(wait_field(s->peer, side), how);
	else if (!s->state->finished)
		announce_by_write(s, side, how);
	lock_release(&s->state->lock);
	atomic_thread_fence(memory_order_seq_cst);
}

bool stream_is_announced(const struct stream *s, enum side side)
{
	return s->peer == NULL || atomic_load(wait_field(s->peer, side)) != ISMFS_AWAKE;
}

void stream_settle_cursor(struct stream *s)
{
	struct word told = word_unpack(atomic_load(&s->state->confirmed)), read = word_unpack(atomic_load(&s->state->consumed));
	uint8_t wants = word_unpack(load_own(s, ISMFS_OFF_CONS)).producer_flags & (ISMFS_WRITE_BLOCKED | ISMFS_CONS_CURS_UPD_REQ);

	if (wants != 0 && !cursor_equal(told.at, read.at)) {
		publish_cursor(s);
		signal_side(s, WRITER);
	}
}

void stream_confirm(struct stream *s)
{
	if (cursor_equal(word_unpack(atomic_load(&s->state->confirmed)).at, word_unpack(atomic_load(&s->state->consumed)).at))
		return;
	publish_cursor(s);
	signal_side(s, WRITER);
}
