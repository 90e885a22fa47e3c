/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: what arrived, what space there is, sending, receiving, ending (docs/dmb-format.md 1.1, 1.2). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define PEER_ENDED (ISMFS_PEER_DONE_WRITING | ISMFS_PEER_CONN_CLOSED | ISMFS_PEER_CONN_ABORT)
#define PEER_LEFT (ISMFS_PEER_CONN_CLOSED | ISMFS_PEER_CONN_ABORT)
#define LEAST_CONFIRM 2304 /* the kernel's SOCK_MIN_SNDBUF / 2 */

static uint32_t min_u32(size_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

void conn_fail(struct ismfs_conn *conn, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&conn->failed, &none, error);
}

static int fail_protocol(struct ismfs_conn *conn)
{
	conn_fail(conn, EPROTO);
	return -EPROTO;
}

/* ---- receiving ---- */

static uint32_t rx_available(const struct ismfs_conn *conn)
{
	/* Both cursors were accepted, so the distance is valid. */
	return (uint32_t)cursor_distance(rx_cursor(conn), conn->rx_prod, conn->rx_len);
}

/* Load what the peer wrote. The flags come first: bytes published before an end are then seen with it. */
static int rx_load(struct ismfs_conn *conn)
{
	struct word cons = word_unpack(own_word(conn, ISMFS_OFF_CONS));
	struct word prod = word_unpack(own_word(conn, ISMFS_OFF_PROD));
	struct cursor full = confirmed_cursor(conn); /* after prod: the peer cannot have known a later one */

	full.wrap++;
	if (state_accept(&conn->rx_state, cons.state_flags) != 0 ||
	    cursor_accept(&conn->rx_prod, prod.at, full, conn->rx_len) != 0)
		return fail_protocol(conn);
	return 0;
}

/*
 * Bytes that can be read, looking again only when fewer than wanted are known. -ENODATA: the end of the stream. The failure is loaded
 * before the words, so that what a peer wrote before it left is not lost.
 */
static ssize_t rx_look(struct ismfs_conn *conn, size_t wanted)
{
	uint32_t known = rx_available(conn);
	int failed;

	if (known >= wanted)
		return known;
	failed = atomic_load(&conn->failed);
	if (failed == EPROTO)
		return -EPROTO;
	if (rx_load(conn) != 0)
		return -EPROTO;
	known = rx_available(conn);
	if (known > 0)
		return known;
	if (conn->rx_state & ISMFS_PEER_CONN_ABORT)
		return -ECONNRESET;
	if (conn->rx_state & PEER_ENDED)
		return -ENODATA;
	return -failed;
}

/* The kernel's rule (smc_tx_consumer_update), so that the word does not bounce for every message. */
static bool should_confirm(const struct ismfs_conn *conn, struct cursor read)
{
	struct cursor confirmed = confirmed_cursor(conn);
	uint32_t limit = conn->rx_len / 10 > LEAST_CONFIRM ? conn->rx_len / 10 : LEAST_CONFIRM;
	uint8_t flags = peer_producer_flags(conn);
	int64_t sender_free;

	if (flags & ISMFS_CONS_CURS_UPD_REQ)
		return true;
	if (cursor_distance(confirmed, read, conn->rx_len) <= limit)
		return false;
	sender_free = conn->rx_len - cursor_distance(confirmed, conn->rx_prod, conn->rx_len);
	return sender_free <= conn->rx_len / 2 || (flags & ISMFS_WRITE_BLOCKED);
}

static void rx_advance(struct ismfs_conn *conn, uint32_t n)
{
	struct word read = { .at = cursor_add(rx_cursor(conn), n, conn->rx_len) };

	atomic_store_explicit(&conn->rx_cons, word_pack(read), memory_order_release);
	count_received(conn->procs, n);
	if (should_confirm(conn, read.at))
		publish_consumer(conn);
}

/* Up to the end of the ring. */
static uint32_t rx_piece(const struct ismfs_conn *conn, uint32_t available, const unsigned char **at)
{
	uint32_t count = rx_cursor(conn).count;

	*at = conn->own->map + ISMFS_HEADER + count;
	return min_u32(available, conn->rx_len - count);
}

static void rx_copy(struct ismfs_conn *conn, char *to, uint32_t n)
{
	while (n > 0) {
		const unsigned char *from;
		uint32_t piece = rx_piece(conn, min_u32(n, ISMFS_CHUNK), &from);

		memcpy(to, from, piece);
		rx_advance(conn, piece);
		to += piece;
		n -= piece;
	}
}

ssize_t ismfs_conn_recv(struct ismfs_conn *conn, void *buf, size_t n, int timeout_ms)
{
	int64_t deadline = deadline_in(timeout_ms);
	ssize_t available;

	if (n == 0)
		return 0;
	while ((available = rx_look(conn, n)) == 0) {
		if (wait_ready(conn, READER, deadline) != 0)
			return -EAGAIN;
	}
	if (available < 0)
		return available == -ENODATA ? 0 : available;
	if ((size_t)available > n)
		available = (ssize_t)n;
	rx_copy(conn, buf, (uint32_t)available);
	count_receive_call(conn->procs, (size_t)available);
	return available;
}

ssize_t ismfs_conn_peek(struct ismfs_conn *conn, const void **data)
{
	ssize_t available = rx_look(conn, 1);
	const unsigned char *at;

	if (available <= 0)
		return available;
	available = rx_piece(conn, (uint32_t)available, &at);
	*data = at;
	return available;
}

int ismfs_conn_consume(struct ismfs_conn *conn, size_t n)
{
	if (n > rx_available(conn))
		return -EINVAL;
	if (n == 0)
		return 0;
	rx_advance(conn, (uint32_t)n);
	count_receive_call(conn->procs, n);
	return 0;
}

/* ---- sending ---- */

static uint32_t tx_free(const struct ismfs_conn *conn)
{
	return conn->tx_len - (uint32_t)cursor_distance(conn->tx_cons, conn->tx_prod, conn->tx_len);
}

static int tx_load(struct ismfs_conn *conn)
{
	struct word cons = word_unpack(own_word(conn, ISMFS_OFF_CONS));

	if (state_accept(&conn->tx_state, cons.state_flags) != 0 ||
	    cursor_accept(&conn->tx_cons, cons.at, conn->tx_prod, conn->tx_len) != 0)
		return fail_protocol(conn);
	return 0;
}

/* Free space in the peer's ring. A peer that closed is noticed at once: its flags stand in the word that is loaded anyway. */
static ssize_t tx_look(struct ismfs_conn *conn)
{
	int failed = atomic_load(&conn->failed);

	if (atomic_load_explicit(&conn->shut, memory_order_relaxed))
		return -EPIPE;
	if (failed != 0)
		return -failed;
	if (tx_load(conn) != 0)
		return -EPROTO;
	return conn->tx_state & PEER_LEFT ? -ECONNRESET : (ssize_t)tx_free(conn);
}

static void tx_advance(struct ismfs_conn *conn, uint32_t n)
{
	conn->tx_prod = cursor_add(conn->tx_prod, n, conn->tx_len);
	count_sent(conn->procs, n);
	publish_producer(conn);
}

/* One round: what fits, at most a chunk. 0: the ring is full. */
static ssize_t tx_some(struct ismfs_conn *conn, const void *from, size_t n)
{
	ssize_t space = tx_look(conn);
	uint32_t piece;
	int err;

	if (space < 0)
		return space;
	publish_write_blocked(conn, n > (size_t)space);
	piece = min_u32(n, (uint32_t)space);
	piece = min_u32(piece, ISMFS_CHUNK);
	if (piece == 0)
		return 0;
	err = put_payload(conn, from, piece);
	if (err != 0)
		return err;
	tx_advance(conn, piece);
	return piece;
}

ssize_t ismfs_conn_send(struct ismfs_conn *conn, const void *buf, size_t n, int timeout_ms)
{
	int64_t deadline = deadline_in(timeout_ms);
	const char *from = buf;
	size_t done = 0;
	ssize_t sent = 0;

	while (done < n) {
		sent = tx_some(conn, from + done, n - done);
		if (sent == 0)
			sent = wait_ready(conn, WRITER, deadline);
		if (sent < 0)
			break;
		done += (size_t)sent;
	}
	count_send_call(conn->procs, n, done > 0);
	return done > 0 ? (ssize_t)done : sent;
}

ssize_t ismfs_conn_reserve(struct ismfs_conn *conn, void **space)
{
	uint32_t at = conn->tx_prod.count;
	ssize_t free_bytes;

	if (conn->peer->map == NULL)
		return -EOPNOTSUPP;
	free_bytes = tx_look(conn);
	if (free_bytes < 0)
		return free_bytes;
	publish_write_blocked(conn, free_bytes == 0);
	*space = conn->peer->map + ISMFS_HEADER + at;
	return min_u32((size_t)free_bytes, conn->tx_len - at);
}

int ismfs_conn_commit(struct ismfs_conn *conn, size_t n)
{
	if (n > tx_free(conn))
		return -EINVAL;
	if (n == 0)
		return 0;
	tx_advance(conn, (uint32_t)n);
	count_send_call(conn->procs, n, true);
	return 0;
}

/* ---- both ---- */

bool conn_ready(struct ismfs_conn *conn, enum side side)
{
	return (side == READER ? rx_look(conn, 1) : tx_look(conn)) != 0;
}

int ismfs_conn_wait_readable(struct ismfs_conn *conn, int timeout_ms)
{
	return wait_ready(conn, READER, deadline_in(timeout_ms));
}

int ismfs_conn_wait_writable(struct ismfs_conn *conn, int timeout_ms)
{
	return wait_ready(conn, WRITER, deadline_in(timeout_ms));
}

int ismfs_conn_shutdown(struct ismfs_conn *conn)
{
	int failed = atomic_load(&conn->failed);

	if (failed != 0)
		return -failed;
	if (!atomic_exchange(&conn->shut, true))
		publish_state(conn, ISMFS_PEER_DONE_WRITING);
	return 0;
}

/* ---- opening and closing ---- */

/* A peer without a mapping of my DMB cannot wake a futex, but every peer can ring. */
static uint8_t choose_sleep(const struct ismfs_dmb *own, unsigned int flags)
{
	if ((flags & ISMFS_USE_BELL) || dmb_is_separated(own))
		return ISMFS_SLEEPS_ON_BELL;
	return ISMFS_SLEEPS_ON_FUTEX;
}

static int open_bells(struct ismfs_conn *conn, const struct ismfs_device *dev)
{
	conn->peer_bell = bell_open(dev, conn->peer->token);
	if (conn->peer_bell < 0)
		return conn->peer_bell;
	if (conn->sleeps_on != ISMFS_SLEEPS_ON_BELL)
		return 0;
	conn->bell.fd = bell_open(dev, conn->own->token);
	return conn->bell.fd < 0 ? conn->bell.fd : 0;
}

static int write_type(const struct ismfs_dmb *peer)
{
	unsigned char word[8] = { ISMFS_TYPE_DMB };

	if (peer->map == NULL)
		return pwrite(peer->fd, word, sizeof(word), ISMFS_OFF_TYPE) == (ssize_t)sizeof(word) ? 0 : -errno;
	peer->map[ISMFS_OFF_TYPE] = ISMFS_TYPE_DMB;
	return 0;
}

static void conn_free(struct ismfs_conn *conn)
{
	if (conn->bell.fd >= 0)
		close(conn->bell.fd);
	if (conn->peer_bell >= 0)
		close(conn->peer_bell);
	pthread_mutex_destroy(&conn->lock);
	free(conn);
}

int ismfs_conn_open(const struct ismfs_device *dev, struct ismfs_dmb *own, struct ismfs_dmb *peer, struct ismfs_procs *procs,
		    unsigned int flags, struct ismfs_conn **out)
{
	struct ismfs_conn *conn = calloc(1, sizeof(*conn));
	int err;

	*out = NULL;
	if (conn == NULL)
		return -ENOMEM;
	conn->own = own;
	conn->peer = peer;
	conn->procs = procs;
	conn->rx_len = (uint32_t)own->size - ISMFS_HEADER;
	conn->tx_len = (uint32_t)peer->size - ISMFS_HEADER;
	conn->bell.fd = conn->peer_bell = -1;
	conn->sleeps_on = choose_sleep(own, flags);
	pthread_mutex_init(&conn->lock, NULL);
	wait_setup(conn);
	err = open_bells(conn, dev);
	if (err == 0)
		err = write_type(peer);
	if (err != 0) {
		conn_free(conn);
		return err;
	}
	*out = conn;
	return 0;
}

/* rx_look rather than what is known: bytes that came since the last receive are unread too. */
static uint8_t closing_flag(struct ismfs_conn *conn)
{
	ssize_t unread = rx_look(conn, SIZE_MAX);

	return unread > 0 || unread == -EPROTO ? ISMFS_PEER_CONN_ABORT : ISMFS_PEER_CONN_CLOSED;
}

void ismfs_conn_close(struct ismfs_conn *conn)
{
	if (conn == NULL)
		return;
	publish_state(conn, closing_flag(conn));
	conn_free(conn);
}
