// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"time"
)

// A doorbell page (docs/dmb-format.md 2):
//
//	off  size  field            written by
//	  0     1  type             owner
//	 24     4  sequence         peer, owner, device
//	 28     4  wait state       owner; the peer clears it
//	 32     4  place            owner
//	 36     4  slice            owner
//	 64  4032  bits             set by the peer, cleared by the owner
const (
	PageSize = pageSize // also what tells the device that it is always merged

	pageType    = 0xDB
	offPageSeq  = 24
	offPageWait = 28
	offPlace    = 32
	offSlice    = 36
	offPageBits = 64

	// PageWords is how many words of 64 bits a page has, and PageBits how many bits.
	PageWords = (PageSize - offPageBits) / 8
	PageBits  = 64 * PageWords
)

// A Page is a doorbell page, its owner's or its peer's view. Whatever the peer writes there, nothing here fails: a page says
// only that it may be worth looking.
type Page struct {
	sequence, wait, place, slice *atomic.Uint32
	bits                         [PageWords]*atomic.Uint64
}

// Page returns the DMB as a doorbell page and makes it one; nil unless it has [PageSize] bytes. The page is valid as long as
// the DMB is open.
func (r *Registered) Page() *Page {
	p := newPage(r.mapping)
	if p != nil {
		word32(r.mapping, 0).Store(pageWord)
	}
	return p
}

// Page returns the DMB as a doorbell page, nil unless it is mapped and has [PageSize] bytes.
func (a *Attached) Page() *Page { return newPage(a.mapping) }

func newPage(mapping []byte) *Page {
	if len(mapping) != PageSize {
		return nil
	}
	p := &Page{
		sequence: word32(mapping, offPageSeq), wait: word32(mapping, offPageWait),
		place: word32(mapping, offPlace), slice: word32(mapping, offSlice),
	}
	for i := range p.bits {
		p.bits[i] = word64(mapping, offPageBits+8*i)
	}
	return p
}

// Set sets a bit: the peer's. It ends in a full fence.
func (p *Page) Set(bit uint16) { p.bits[bit/64].Or(1 << (bit % 64)) }

// Take clears a word of bits and returns those that were set: the owner's.
func (p *Page) Take(word int) uint64 {
	if p.bits[word].Load() == 0 {
		return 0
	}
	return p.bits[word].Swap(0)
}

// SetWaiting announces how the owner waits.
func (p *Page) SetWaiting(w Wait) { p.wait.Store(uint32(w)) }

// ClearWaiting makes the owner awake and returns how it waited; Awake if it did not, or another has cleared it. Who clears it
// owes the wake-up.
func (p *Page) ClearWaiting() Wait {
	w := p.wait.Load()
	if w == 0 || !p.wait.CompareAndSwap(w, 0) {
		return Awake
	}
	return Wait(w)
}

// Place loads where the owner runs: 0 on several CPUs, or it does not say; else on the CPU of that number, less one.
func (p *Page) Place() uint32 { return p.place.Load() }

// SetPlace says where the owner runs.
func (p *Page) SetPlace(place uint32) { p.place.Store(place) }

// Working is the longest slice. It stands for one that has not ended: the owner did not give the CPU away, somebody took it.
const Working = time.Duration(math.MaxUint32)

// Slice loads how long the owner's process had the CPU before it last gave it away, or [Working]; 0: it does not say.
func (p *Page) Slice() time.Duration { return time.Duration(p.slice.Load()) }

// SetSlice says how long the owner's process has had the CPU, which it is about to give away; or that it is [Working].
func (p *Page) SetSlice(d time.Duration) { p.slice.Store(uint32(min(max(d, 0), Working))) }

// Sequence loads the sequence, for WaitSequence.
func (p *Page) Sequence() uint32 { return p.sequence.Load() }

// WaitSequence sleeps as [Registered.WaitSequence] does.
func (p *Page) WaitSequence(seq uint32, timeout time.Duration) (timedOut bool) {
	return futexWait(p.sequence, seq, timeout)
}

// Wake moves the sequence and wakes who sleeps on it.
func (p *Page) Wake() {
	p.sequence.Add(1)
	futexWake(p.sequence, math.MaxInt32)
}

var pageWord = binary.NativeEndian.Uint32([]byte{pageType, 0, 0, 0})
