// SPDX-License-Identifier: Apache-2.0

package smc

import "fmt"

// Cursor is a place in a ring of size bytes: Count, below size, and how often
// the ring was passed, modulo 65536 (union smc_host_cursor). The zero Cursor is
// the start. Sizes are at most 2^31 bytes.
type Cursor struct {
	Wrap  uint16
	Count uint32
}

// Add returns the cursor n bytes on. n is at most size (smc_curs_add).
func (c Cursor) Add(n, size uint32) Cursor {
	c.Count += n
	if c.Count >= size {
		c.Count -= size
		c.Wrap++
	}
	return c
}

// CursorAfter returns the cursor after so many bytes from the start.
func CursorAfter(bytes uint64, size uint32) Cursor {
	return Cursor{uint16(bytes / uint64(size)), uint32(bytes % uint64(size))}
}

// Diff returns the bytes from c to a cursor that is known to lie 0 to size
// bytes on (smc_curs_diff).
func (c Cursor) Diff(to Cursor, size uint32) uint32 {
	if c.Wrap != to.Wrap {
		return size - c.Count + to.Count
	}
	return to.Count - c.Count
}

// diffLarge returns the bytes from c to a later cursor, at most size, however
// far it is (smc_curs_diff_large).
func (c Cursor) diffLarge(to Cursor, size uint32) uint32 {
	wraps := uint64(to.Wrap - c.Wrap) // modulo 65536
	if wraps == 0 {
		return to.Count - min(c.Count, to.Count)
	}
	d := uint64(size) - uint64(c.Count) + uint64(to.Count) + (wraps-1)*uint64(size)
	return uint32(min(d, uint64(size)))
}

// Advance checks a cursor that another process wrote against an older one that
// can be trusted, and returns the bytes between them: 0 to size. It fails with
// a *ProtocolError if new lies outside the ring, behind old or more than size
// bytes on. The kernel trusts its peer and has no such check.
func Advance(old, new Cursor, size uint32) (n uint32, err error) {
	switch {
	case new.Count >= size:
		return 0, cursorError(old, new, size, "lies outside the ring")
	case new.Wrap == old.Wrap && new.Count >= old.Count:
		return new.Count - old.Count, nil
	case new.Wrap == old.Wrap:
		return 0, cursorError(old, new, size, "went backwards")
	case new.Wrap == old.Wrap+1 && new.Count <= old.Count:
		return size - old.Count + new.Count, nil
	}
	return 0, cursorError(old, new, size, "is further than the ring is long")
}

func cursorError(old, new Cursor, size uint32, what string) error {
	return &ProtocolError{"CDC cursor",
		fmt.Sprintf("%04x:%08x after %04x:%08x in a ring of %d %s",
			new.Wrap, new.Count, old.Wrap, old.Count, size, what)}
}

// minUpdateLimit is the smallest limit below which no cursor is confirmed:
// SOCK_MIN_SNDBUF / 2 of a 64-bit kernel.
const minUpdateLimit = 2304

// ConsumerUpdate reports whether a reader must publish its cursor now
// (smc_tx_consumer_update). size is the ring's, confirmed the cursor last
// published, cons the reader's, prod the writer's as last received, flags the
// writer's. force is set when an urgent byte was consumed.
//
// A cursor held back here goes out with the next consumer word that is written
// for another reason.
func ConsumerUpdate(size uint32, confirmed, cons, prod Cursor, flags ProducerFlags, force bool) bool {
	if force || flags&ConsCursUpdReq != 0 {
		return true
	}
	if confirmed.Diff(cons, size) <= max(size/10, minUpdateLimit) {
		return false
	}
	free := size - confirmed.diffLarge(prod, size)
	return free <= size/2 || flags&WriteBlocked != 0
}
