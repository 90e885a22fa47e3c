/* SPDX-License-Identifier: Apache-2.0 */
/* What arrived, what space there is, moving bytes. The words are written in stream_words.c, ends are in stream_end.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "stream_internal.h"

#define LEAST_CONFIRM 2304 /* the kernel's SOCK_MIN_SNDBUF / 2 */

static struct cursor cursor_of(uint64_t word)
{
	return word_unpack(word).at;
}

/* What is copied before it is published, so that both sides copy at once and stay in the cache. */
static uint32_t chunk_of(uint32_t len)
{
	return len / 4 < ISMFS_CHUNK ? len / 4 : ISMFS_CHUNK;
}

void stream_open(struct stream *s, size_t own_size, size_t peer_size)
{
	s->rx_len = (uint32_t)own_size - ISMFS_HEADER;
	s->tx_len = (uint32_t)peer_size - ISMFS_HEADER;
	s->state->machine.state = SMC_ACTIVE;
	put_type(s);
}

/* ---- looking ---- */

/* The reader's look: accept the producer word if it has changed. Under reading. */
static int look(struct stream *s)
{
	struct stream_state *st = s->state;
	uint64_t word = load_own(s, ISMFS_OFF_PROD);
	struct cursor prod = cursor_of(word), read = cursor_of(atomic_load_explicit(&st->consumed, memory_order_relaxed));
	int64_t left;

	if (word == st->rx_word)
		return 0;
	if (prod.count >= s->rx_len || cursor_distance(st->rx_prod, prod, s->rx_len) < 0)
		return -EPROTO;
	left = cursor_distance(read, prod, s->rx_len);
	if (left < 0 || left > s->rx_len)
		return -EPROTO;
	st->rx_left = (uint32_t)left;
	st->rx_prod = prod;
	st->rx_word = word;
	return 0;
}

/*
 * Bytes that can be read, looking again only when fewer than wanted are known; or why there will be none. The reasons are loaded before
 * the producer word, so that bytes published before an end are seen with it. Under reading.
 */
ssize_t readable(struct stream *s, size_t wanted)
{
	struct stream_state *st = s->state;
	int stop;

	if (st->rx_left >= wanted)
		return st->rx_left;
	stream_accept(s);
	stop = atomic_load(&st->read_stop);
	if (look(s) != 0) {
		stream_fail(s, EPROTO);
		return -EPROTO;
	}
	if (st->rx_left > 0)
		return st->rx_left;
	if (stop == 0)
		return -EAGAIN;
	return stop == SMC_EOF ? 0 : -stop;
}

uint32_t free_space(const struct stream *s)
{
	struct cursor read = cursor_of(atomic_load(&s->state->said));

	return s->tx_len - (uint32_t)cursor_distance(read, s->state->tx_prod, s->tx_len);
}

/* ---- reading ---- */

/* smc_tx_consumer_update */
static bool must_confirm(const struct stream *s, struct cursor read)
{
	const struct stream_state *st = s->state;
	struct cursor told = cursor_of(atomic_load_explicit(&st->confirmed, memory_order_relaxed));
	uint32_t limit = s->rx_len / 10 > LEAST_CONFIRM ? s->rx_len / 10 : LEAST_CONFIRM;
	uint8_t flags = word_unpack(load_own(s, ISMFS_OFF_CONS)).producer_flags;

	if (flags & ISMFS_CONS_CURS_UPD_REQ)
		return true;
	if (cursor_distance(told, read, s->rx_len) <= limit)
		return false;
	return s->rx_len - cursor_distance(told, st->rx_prod, s->rx_len) <= s->rx_len / 2 || (flags & ISMFS_WRITE_BLOCKED);
}

bool advance(struct stream *s, uint32_t n)
{
	struct stream_state *st = s->state;
	struct word read = { .at = cursor_add(cursor_of(atomic_load_explicit(&st->consumed, memory_order_relaxed)), n, s->rx_len) };

	st->rx_left -= n;
	atomic_store_explicit(&st->consumed, word_pack(read), memory_order_release);
	if (!must_confirm(s, read.at))
		return false;
	publish_cursor(s);
	return true;
}

/* Where the next bytes of a list of buffers go, behind skip bytes. */
struct place {
	const struct iovec *iov;
	int n;
	size_t at;
};

static struct place place_behind(const struct iovec *iov, int n, size_t skip)
{
	while (n > 0 && skip >= iov->iov_len) {
		skip -= iov->iov_len;
		iov++;
		n--;
	}
	return (struct place){ iov, n, skip };
}

static size_t place_room(const struct place *p)
{
	size_t room = 0;

	for (int i = 0; i < p->n; i++)
		room += p->iov[i].iov_len;
	return room - (p->n > 0 ? p->at : 0);
}

/* The next piece, at most n bytes; moves on. */
static unsigned char *place_next(struct place *p, size_t *n)
{
	unsigned char *b;

	while (p->at == p->iov->iov_len) {
		p->iov++;
		p->at = 0;
	}
	b = (unsigned char *)p->iov->iov_base + p->at;
	if (*n > p->iov->iov_len - p->at)
		*n = p->iov->iov_len - p->at;
	p->at += *n;
	return b;
}

/* Copy n bytes out that are there, without moving the cursor, from an offset behind it. */
static void copy_out(const struct stream *s, struct place *to, uint32_t from, size_t n)
{
	uint32_t at = from;

	while (n > 0) {
		size_t piece = n < s->rx_len - at ? n : s->rx_len - at;
		unsigned char *b = place_next(to, &piece);

		memcpy(b, s->own + ISMFS_HEADER + at, piece);
		at = at + piece == s->rx_len ? 0 : at + (uint32_t)piece;
		n -= piece;
	}
}

void note_read(struct stream *s, size_t n, bool published)
{
	if (published)
		signal_side(s, WRITER);
	atomic_fetch_add_explicit(&s->state->bytes_read, n, memory_order_relaxed);
	count_received(s->procs, n);
	count_receive_call(s->procs, n);
}

static ssize_t read_locked(struct stream *s, const struct iovec *iov, int n, size_t skip, bool peek)
{
	struct place to = place_behind(iov, n, skip);
	size_t room = place_room(&to), done = 0;
	bool published = false;
	ssize_t have;

	if (room == 0)
		return 0;
	have = readable(s, room);
	if (have <= 0)
		return have;
	count_full_read(s, (size_t)have, room);
	if ((size_t)have > room)
		have = (ssize_t)room;
	while (done < (size_t)have) {
		size_t piece = (size_t)have - done;
		uint32_t at = cursor_of(atomic_load_explicit(&s->state->consumed, memory_order_relaxed)).count;

		if (peek) {
			copy_out(s, &to, at, piece);
			return have;
		}
		if (piece > chunk_of(s->rx_len))
			piece = chunk_of(s->rx_len);
		copy_out(s, &to, at, piece);
		published = advance(s, (uint32_t)piece) || published;
		done += piece;
	}
	note_read(s, done, published);
	return (ssize_t)done;
}

ssize_t stream_read(struct stream *s, const struct iovec *iov, int n, size_t skip, bool peek)
{
	ssize_t done;

	lock_take(&s->state->reading);
	done = read_locked(s, iov, n, skip, peek);
	lock_release(&s->state->reading);
	return done;
}

size_t stream_readable(struct stream *s)
{
	ssize_t n;

	lock_take(&s->state->reading);
	n = readable(s, SIZE_MAX);
	lock_release(&s->state->reading);
	return n > 0 ? (size_t)n : 0;
}

/* ---- writing ---- */

/* Counted before they are published: who has read them finds them in xfer_bytes. */
void publish_written(struct stream *s, uint32_t n)
{
	count_sent(s->procs, n);
	s->state->tx_prod = cursor_add(s->state->tx_prod, n, s->tx_len);
	publish_producer_word(s);
}

/* Copies in pieces; returns what was written, and in *stop why no more. Under writing. */
static size_t write_pieces(struct stream *s, struct place from, size_t left, int *stop)
{
	struct stream_state *st = s->state;
	size_t done = 0;

	while (left > 0) {
		uint32_t room;
		size_t piece;

		stream_accept(s);
		*stop = atomic_load(&st->write_stop);
		if (*stop != 0)
			return done;
		room = free_space(s);
		set_write_blocked(s, left > room);
		if (room == 0)
			break;
		piece = left < room ? left : room;
		if (piece > chunk_of(s->tx_len))
			piece = chunk_of(s->tx_len);
		for (size_t put = 0; put < piece;) {
			size_t part = piece - put;
			uint32_t at = st->tx_prod.count + (uint32_t)put;
			const unsigned char *b = place_next(&from, &part);

			if (at >= s->tx_len)
				at -= s->tx_len;
			*stop = -put_bytes(s, b, part, at);
			if (*stop != 0) {
				stream_fail(s, *stop);
				return done;
			}
			put += part;
		}
		publish_written(s, (uint32_t)piece);
		done += piece;
		left -= piece;
	}
	return done;
}

static ssize_t write_locked(struct stream *s, struct place from, size_t left)
{
	int stop = 0;
	size_t done = write_pieces(s, from, left, &stop);

	if (done == 0)
		return stop != 0 ? -stop : -EAGAIN;
	signal_side(s, READER);
	return (ssize_t)done;
}

static uint32_t turn_of(const struct stream *s)
{
	return atomic_load(&s->state->turn.word) & ~LOCK_WAITED;
}

bool is_anothers_turn(struct stream *s)
{
	uint32_t turn = turn_of(s);

	return turn != 0 && turn != lock_thread() && !lock_was_left(&s->state->turn);
}

ssize_t stream_write(struct stream *s, const struct iovec *iov, int n, size_t skip, bool whole)
{
	struct place from = place_behind(iov, n, skip);
	size_t left = place_room(&from);
	ssize_t done;

	if (left == 0)
		return 0;
	lock_take(&s->state->writing);
	if (is_anothers_turn(s)) {
		lock_release(&s->state->writing);
		return -EBUSY;
	}
	done = write_locked(s, from, left);
	if (whole && done > 0 && (size_t)done < left)
		(void)lock_claim(&s->state->turn);
	lock_release(&s->state->writing);
	count_write(s, left, done);
	return done;
}

void stream_written(struct stream *s)
{
	if (lock_is_mine(&s->state->turn))
		lock_leave(&s->state->turn);
}

void stream_wait_turn(struct stream *s)
{
	lock_await(&s->state->turn);
}

size_t stream_unread_by_peer(const struct stream *s)
{
	struct cursor read = cursor_of(atomic_load(&s->state->said)), prod = cursor_of(atomic_load(&s->state->produced));
	int64_t n = cursor_distance(read, prod, s->tx_len);

	return n > 0 ? (size_t)n : 0;
}

bool stream_is_mine(const struct stream *s, enum side side)
{
	const struct stream_state *st = s->state;

	return lock_is_mine(side == READER ? &st->reading : &st->writing) || lock_is_mine(&st->lock);
}

/* ---- readiness ---- */

/*
 * TCP's measure (sk_stream_is_writeable): a third is free. A program that polls and then writes a buffer's worth must not be blocked in
 * the middle of it, while its peer waits to be read.
 */
static bool has_room(const struct stream *s)
{
	size_t used = stream_unread_by_peer(s);

	return s->tx_len - used >= used / 2;
}

short stream_ready(struct stream *s)
{
	struct stream_state *st = s->state;
	short ready = 0;
	int read_stop, write_stop;
	uint64_t read, prod;

	stream_accept(s);
	read_stop = atomic_load(&st->read_stop);
	write_stop = atomic_load(&st->write_stop);
	prod = load_own(s, ISMFS_OFF_PROD);
	read = atomic_load(&st->consumed);
	if (!cursor_equal(cursor_of(prod), cursor_of(read)))
		ready |= POLLIN | POLLRDNORM;
	if (read_stop != 0)
		ready |= POLLIN | POLLRDNORM | POLLRDHUP;
	if (write_stop != 0 || has_room(s))
		ready |= POLLOUT | POLLWRNORM;
	if (atomic_load(&st->error) != 0)
		ready |= POLLERR;
	if (atomic_load(&st->failed) || (read_stop != 0 && atomic_load(&st->done_writing)))
		ready |= POLLHUP; /* as TCP: not for a peer's close alone, which leaves bytes to be read */
	return ready;
}

struct stream_words stream_words(const struct stream *s)
{
	return (struct stream_words){ load_own(s, ISMFS_OFF_PROD), load_own(s, ISMFS_OFF_CONS) };
}
