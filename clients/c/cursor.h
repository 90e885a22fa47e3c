/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cursors and the two header words: pure arithmetic, and the checks on what a peer wrote.
 *
 *   byte 0-1 wrap   byte 2-5 count   byte 6 producer flags   byte 7 connection state flags
 *
 * The bytes keep their places on every host; inside a field they have the host's order. Words are built from bytes for that reason,
 * and compilers turn it into shifts.
 */
#ifndef ISMFS_CURSOR_H
#define ISMFS_CURSOR_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct cursor {
	uint32_t count; /* offset in the ring, below its length */
	uint16_t wrap;  /* rounds, modulo 65536 */
};

struct word {
	struct cursor at;
	uint8_t producer_flags;
	uint8_t state_flags;
};

static inline uint64_t word_pack(struct word w)
{
	unsigned char b[8];
	uint64_t packed;

	memcpy(b, &w.at.wrap, 2);
	memcpy(b + 2, &w.at.count, 4);
	b[6] = w.producer_flags;
	b[7] = w.state_flags;
	memcpy(&packed, b, 8);
	return packed;
}

static inline struct word word_unpack(uint64_t packed)
{
	unsigned char b[8];
	struct word w;

	memcpy(b, &packed, 8);
	memcpy(&w.at.wrap, b, 2);
	memcpy(&w.at.count, b + 2, 4);
	w.producer_flags = b[6];
	w.state_flags = b[7];
	return w;
}

static inline bool cursor_equal(struct cursor a, struct cursor b)
{
	return a.count == b.count && a.wrap == b.wrap;
}

/* n is at most len. */
static inline struct cursor cursor_add(struct cursor c, uint32_t n, uint32_t len)
{
	c.count += n;
	if (c.count >= len) {
		c.count -= len;
		c.wrap++;
	}
	return c;
}

/* Bytes from a to b, 0 to len, or -EPROTO when b cannot lie ahead of a. Both counts are below len. */
static inline int64_t cursor_distance(struct cursor a, struct cursor b, uint32_t len)
{
	if (a.wrap == b.wrap)
		return b.count >= a.count ? (int64_t)(b.count - a.count) : -EPROTO;
	if ((uint16_t)(a.wrap + 1) != b.wrap || b.count > a.count)
		return -EPROTO;
	return (int64_t)len - a.count + b.count;
}

/*
 * A cursor that a peer wrote may take the place of *last if it lies between *last and limit, ring's end included: the limit of a
 * producer cursor is one ring ahead of what was read, that of a consumer cursor is what was produced.
 */
static inline int cursor_accept(struct cursor *last, struct cursor next, struct cursor limit, uint32_t len)
{
	if (next.count >= len)
		return -EPROTO;
	if (cursor_distance(*last, next, len) < 0 || cursor_distance(next, limit, len) < 0)
		return -EPROTO;
	*last = next;
	return 0;
}

/* State flags are states, not events: one that was set stays set. */
static inline int state_accept(uint8_t *last, uint8_t next)
{
	if (*last & ~next)
		return -EPROTO;
	*last = next;
	return 0;
}

#endif
