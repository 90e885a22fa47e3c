/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of the two headers: mine, which the peer writes, and the peer's, which I write by stores (merged mode) or by pwrite
 * (copy mode, in single words). Signals to a sleeping peer are sent from here and nowhere else.
 */
#define _GNU_SOURCE
#include "internal.h"

static _Atomic uint64_t *word_at(const struct ismfs_dmb *dmb, size_t offset)
{
	return (_Atomic uint64_t *)(void *)(dmb->map + offset);
}

static _Atomic uint32_t *sequence_of(const struct ismfs_dmb *dmb)
{
	return (_Atomic uint32_t *)(void *)(dmb->map + ISMFS_OFF_SEQ);
}

static _Atomic uint8_t *wait_field(const struct ismfs_dmb *dmb, enum side side)
{
	return (_Atomic uint8_t *)(void *)(dmb->map + ISMFS_OFF_WAIT + side);
}

static void full_fence(void)
{
	atomic_thread_fence(memory_order_seq_cst);
}

/* The store releases what was written before it: payload by memcpy, or by an earlier pwrite. */
static void put_word(struct ismfs_conn *conn, size_t offset, uint64_t word)
{
	if (conn->peer->map != NULL) {
		atomic_store_explicit(word_at(conn->peer, offset), word, memory_order_release);
	} else {
		int err = pwrite_all(conn->peer->fd, &word, sizeof(word), offset);

		if (err != 0)
			conn_fail(conn, -err);
	}
	full_fence();
}

uint64_t own_word(const struct ismfs_conn *conn, size_t offset)
{
	return atomic_load_explicit(word_at(conn->own, offset), memory_order_acquire);
}

static void wake(struct ismfs_conn *conn, uint8_t how)
{
	if (how == ISMFS_SLEEPS_ON_FUTEX && conn->peer->map != NULL) {
		atomic_fetch_add(sequence_of(conn->peer), 1);
		futex_wake_all(sequence_of(conn->peer), true);
	} else {
		bell_ring(conn->peer_bell);
	}
}

/*
 * Wake the peer's thread if it sleeps. Whoever clears the field owes the wake-up. A failed exchange means that another thread of mine
 * owes it, or that the peer woke and, if it announced again, looked after my fence and so has seen what I published before.
 */
static void signal_peer(struct ismfs_conn *conn, enum side side)
{
	_Atomic uint8_t *field = wait_field(conn->own, side);
	uint8_t how = atomic_load_explicit(field, memory_order_relaxed);

	if (how != ISMFS_SLEEPS_ON_FUTEX && how != ISMFS_SLEEPS_ON_BELL)
		return;
	if (atomic_compare_exchange_strong(field, &how, ISMFS_AWAKE))
		wake(conn, how);
}

void publish_producer(struct ismfs_conn *conn)
{
	put_word(conn, ISMFS_OFF_PROD, word_pack((struct word){ .at = conn->tx_prod }));
	signal_peer(conn, READER);
}

struct cursor rx_cursor(const struct ismfs_conn *conn)
{
	return word_unpack(atomic_load_explicit(&conn->rx_cons, memory_order_acquire)).at;
}

struct cursor confirmed_cursor(const struct ismfs_conn *conn)
{
	return word_unpack(atomic_load_explicit(&conn->confirmed, memory_order_relaxed)).at;
}

/*
 * The consumer word holds the reader's cursor and the writer's flags, so both threads change it under the lock. Any change may carry a
 * cursor that has moved on, so each one signals the peer's writer.
 */
static void change_consumer_word(struct ismfs_conn *conn, uint8_t set_state, uint8_t set_flags, uint8_t clear_flags)
{
	struct word w;

	pthread_mutex_lock(&conn->lock);
	w = word_unpack(atomic_load_explicit(&conn->confirmed, memory_order_relaxed));
	w.at = rx_cursor(conn);
	w.state_flags |= set_state;
	w.producer_flags = (uint8_t)((w.producer_flags | set_flags) & ~clear_flags);
	atomic_store_explicit(&conn->confirmed, word_pack(w), memory_order_relaxed);
	put_word(conn, ISMFS_OFF_CONS, word_pack(w));
	pthread_mutex_unlock(&conn->lock);
	signal_peer(conn, WRITER);
}

void publish_consumer(struct ismfs_conn *conn)
{
	change_consumer_word(conn, 0, 0, 0);
}

/* A peer that holds back a cursor has to hear of the flag also when it sleeps, whichever of its threads that is. */
void publish_write_blocked(struct ismfs_conn *conn, bool blocked)
{
	struct word w = word_unpack(atomic_load_explicit(&conn->confirmed, memory_order_relaxed));

	if (((w.producer_flags & ISMFS_WRITE_BLOCKED) != 0) == blocked)
		return;
	if (!blocked) {
		change_consumer_word(conn, 0, 0, ISMFS_WRITE_BLOCKED);
		return;
	}
	change_consumer_word(conn, 0, ISMFS_WRITE_BLOCKED, 0);
	signal_peer(conn, READER);
}

void publish_state(struct ismfs_conn *conn, uint8_t state_flag)
{
	change_consumer_word(conn, state_flag, 0, 0);
	signal_peer(conn, READER);
}

uint8_t peer_producer_flags(const struct ismfs_conn *conn)
{
	return word_unpack(own_word(conn, ISMFS_OFF_CONS)).producer_flags;
}

bool holds_back_cursor(const struct ismfs_conn *conn)
{
	uint8_t wants = peer_producer_flags(conn) & (ISMFS_WRITE_BLOCKED | ISMFS_CONS_CURS_UPD_REQ);

	return wants != 0 && !cursor_equal(rx_cursor(conn), confirmed_cursor(conn));
}

/* In copy mode both fields travel in one word, from my own copy: writing "asleep" over a field that the owner just cleared costs one
 * signal too many, and its clearing is followed by a signal anyway. */
void announce(struct ismfs_conn *conn, enum side side, uint8_t how)
{
	if (conn->peer->map != NULL) {
		atomic_store_explicit(wait_field(conn->peer, side), how, memory_order_release);
		if (how != ISMFS_AWAKE)
			full_fence();
		return;
	}
	pthread_mutex_lock(&conn->lock);
	conn->waits[side] = how;
	uint8_t word[4] = { conn->waits[READER], conn->waits[WRITER], 0, 0 };
	int err = pwrite_all(conn->peer->fd, word, sizeof(word), ISMFS_OFF_WAIT);
	pthread_mutex_unlock(&conn->lock);
	if (err != 0)
		conn_fail(conn, -err);
	full_fence();
}

static int put_piece(struct ismfs_conn *conn, const void *from, uint32_t n, uint32_t at)
{
	if (conn->peer->map == NULL)
		return pwrite_all(conn->peer->fd, from, n, ISMFS_HEADER + (size_t)at);
	ring_fill(conn->peer->map + ISMFS_HEADER + at, from, n);
	return 0;
}

/* Copy n bytes behind the producer cursor, round the ring's end. The caller checked the space. */
int put_payload(struct ismfs_conn *conn, const void *from, uint32_t n)
{
	uint32_t at = conn->tx_prod.count, first = conn->tx_len - at;
	int err;

	if (first > n)
		first = n;
	err = put_piece(conn, from, first, at);
	if (err == 0 && n > first)
		err = put_piece(conn, (const char *)from + first, n - first, 0);
	return err;
}
