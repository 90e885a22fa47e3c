// SPDX-License-Identifier: Apache-2.0

package stream

import "sync/atomic"

// A crowd counts the connections of a link group that have waited lately. If there are more than a few, one wake-up for all of
// them, through the page, beats one for each; a lone connection is better off on its own word, and so is one that is busy
// among thousands that are not.
//
// It counts in periods of 2^periodShift nanoseconds, and looks at the last full one and the one that goes on.
type crowd struct {
	counts atomic.Uint64 // the period, modulo 2^32; its count; that of the one before, 16 bits each
}

const (
	periodShift = 26 // 67 ms

	// mostAlone is how many connections wait as if they were alone.
	mostAlone = 1

	mostCounted = 1<<16 - 1
)

// crowded counts a connection that is about to wait, and reports whether too many do. Where the dispatcher has been at work its
// reading of the clock is good enough.
func (p *Pages) crowded(c *Conn, strategy Strategy) bool {
	if blocking := strategy == Blocking; p.blocking.Load() != blocking {
		p.blocking.Store(blocking)
	}
	period := p.period.Load()
	if period == 0 {
		period = clock() >> periodShift
	}
	if c.waited.Load() == period {
		return p.crowd.most(uint32(period)) > p.alone
	}
	c.waited.Store(period)
	return p.crowd.count(uint32(period)) > p.alone
}

// left takes a connection that is over out of the count: many that come one after the other are no crowd.
func (p *Pages) left(c *Conn) {
	old := p.crowd.counts.Load()
	if period, now, _ := unpackCounts(old); now > 0 && uint32(c.waited.Load()) == period {
		p.crowd.counts.CompareAndSwap(old, old-1<<16) // if it fails, it counts until the next period
	}
}

// most returns the count of the last period or of this one.
func (c *crowd) most(period uint32) uint16 {
	at, now, before := unpackCounts(c.counts.Load())
	if at != period {
		return now // the next period has begun, or another goroutine was faster
	}
	return max(now, before)
}

// count counts one more, and returns what most does.
func (c *crowd) count(period uint32) uint16 {
	for {
		old := c.counts.Load()
		at, now, before := unpackCounts(old)
		switch {
		case at == period:
			now = min(now, mostCounted-1) + 1
		case at+1 == period:
			now, before = 1, now
		case int32(period-at) > 0:
			now, before = 1, 0
		default:
			return max(now, before) // an old reading of the clock
		}
		if c.counts.CompareAndSwap(old, uint64(period)<<32|uint64(now)<<16|uint64(before)) {
			return max(now, before)
		}
	}
}

func unpackCounts(w uint64) (period uint32, now, before uint16) {
	return uint32(w >> 32), uint16(w >> 16), uint16(w)
}
