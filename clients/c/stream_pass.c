/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes between a ring and something else than the program's memory, which takes or gives some of them, or none: what it has not taken stays in
 * the ring, and what there is no room for it is not asked for. The direction's lock is held meanwhile, so that nobody else moves the same bytes.
 */
#define _GNU_SOURCE
#include <errno.h>

#include "stream_internal.h"

/* So much of a ring from an offset on, round its end. Returns how many pieces that is. */
static int pieces(unsigned char *ring, uint32_t len, uint32_t at, size_t n, struct iovec iov[2])
{
	size_t first = n < len - at ? n : len - at;

	iov[0] = (struct iovec){ ring + at, first };
	iov[1] = (struct iovec){ ring, n - first };
	return first < n ? 2 : 1;
}

static ssize_t drain_locked(struct stream *s, size_t most, stream_mover *sink, void *context)
{
	uint32_t at = word_unpack(atomic_load_explicit(&s->state->consumed, memory_order_relaxed)).at.count;
	ssize_t have = readable(s, most), took;
	struct iovec iov[2];

	if (have <= 0)
		return have;
	if ((size_t)have > most)
		have = (ssize_t)most;
	took = sink(context, iov, pieces(s->own + ISMFS_HEADER, s->rx_len, at, (size_t)have, iov));
	if (took > 0)
		note_read(s, (size_t)took, advance(s, (uint32_t)took));
	return took;
}

ssize_t stream_drain(struct stream *s, size_t most, stream_mover *sink, void *context)
{
	ssize_t done;

	lock_take(&s->state->reading);
	done = drain_locked(s, most, sink, context);
	lock_release(&s->state->reading);
	return done;
}

/* Without a mapping of the peer's ring they go through a copy, a small one: threads with small stacks splice, too. */
APART static ssize_t copy_over(struct stream *s, size_t most, stream_mover *source, void *context)
{
	unsigned char copy[4096];
	struct iovec iov = { copy, most < sizeof(copy) ? most : sizeof(copy) };
	ssize_t got = source(context, &iov, 1);
	int err;

	err = got > 0 ? put_bytes(s, copy, (size_t)got, s->state->tx_prod.count) : 0;
	if (err == 0)
		return got;
	stream_fail(s, -err);
	return err;
}

static ssize_t take_over(struct stream *s, size_t most, stream_mover *source, void *context)
{
	struct iovec iov[2];

	if (s->peer == NULL)
		return copy_over(s, most, source, context);
	return source(context, iov, pieces(s->peer + ISMFS_HEADER, s->tx_len, s->state->tx_prod.count, most, iov));
}

static ssize_t fill_locked(struct stream *s, size_t most, stream_mover *source, void *context)
{
	size_t room;
	ssize_t got;
	int stop;

	stream_accept(s);
	stop = atomic_load(&s->state->write_stop);
	if (stop != 0)
		return -stop;
	room = free_space(s);
	set_write_blocked(s, room == 0);
	if (room == 0)
		return -EAGAIN;
	got = take_over(s, most < room ? most : room, source, context);
	if (got > 0) {
		publish_written(s, (uint32_t)got);
		signal_side(s, READER);
	}
	return got;
}

ssize_t stream_fill(struct stream *s, size_t most, stream_mover *source, void *context)
{
	ssize_t done = -EBUSY;

	lock_take(&s->state->writing);
	if (!is_anothers_turn(s))
		done = fill_locked(s, most, source, context);
	lock_release(&s->state->writing);
	if (done != -EBUSY)
		count_write(s, done > 0 ? (size_t)done : most, done);
	return done;
}
