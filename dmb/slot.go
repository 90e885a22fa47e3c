// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/ismfs/ismfs/procs"
)

// ErrNoSlot is the error of [Block.NewSlot] when the block has no place left.
var ErrNoSlot = errors.New("no free slot in the procs block")

// slots gives out the places of a block, those given back first, so that few pages are used.
type slots struct {
	mapping []byte

	mu        sync.Mutex
	free      []int // given back
	used      int   // given out so far, without free
	populated int   // bytes from the start
}

func (s *slots) init(mapping []byte) { s.mapping, s.populated = mapping, pageSize }

// A Slot describes a connection, a listener or a link group to the device, which can read it at any moment.
type Slot struct {
	slots *slots
	n     int
	words []byte // of the mapping

	mu    sync.Mutex
	freed bool
}

// NewSlot takes a place for a description, and populates its memory if it is the first there: an error is for whoever
// describes, who goes on without. [ErrNoSlot] is one.
func (b *Block) NewSlot() (*Slot, error) {
	s := &b.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.used
	if k := len(s.free); k > 0 {
		n = s.free[k-1]
		s.free = s.free[:k-1]
	} else {
		if n >= procs.Slots(int64(len(s.mapping))) {
			return nil, ErrNoSlot
		}
		if err := s.populate(place(n) + procs.SlotLen); err != nil {
			return nil, err
		}
		s.used++
	}
	at := place(n)
	return &Slot{slots: s, n: n, words: s.mapping[at : at+procs.SlotLen]}, nil
}

func place(n int) int { return procs.OffSlots + n*procs.SlotLen }

// populate makes the block's memory be there up to an end.
func (s *slots) populate(end int) error {
	if end <= s.populated {
		return nil
	}
	if err := populate(s.mapping[s.populated:][:pageSize]); err != nil {
		return err
	}
	s.populated += pageSize
	return nil
}

// SetConn describes a connection or a listener.
func (s *Slot) SetConn(c *procs.Conn) {
	var b [procs.SlotLen]byte
	c.Put(&b)
	s.set(&b)
}

// SetGroup describes a link group.
func (s *Slot) SetGroup(g *procs.Group) {
	var b [procs.SlotLen]byte
	g.Put(&b)
	s.set(&b)
}

// Free gives the place back. What is set afterwards is not written; a second Free does nothing.
func (s *Slot) Free() {
	s.set(new([procs.SlotLen]byte))
	s.mu.Lock()
	freed := s.freed
	s.freed = true
	s.mu.Unlock()
	if freed {
		return
	}
	s.slots.mu.Lock()
	s.slots.free = append(s.slots.free, s.n)
	s.slots.mu.Unlock()
}

// set writes all but the sequence, which is odd meanwhile. Every store is atomic, so that none passes another.
func (s *Slot) set(b *[procs.SlotLen]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.freed {
		return
	}
	sequence := word32(s.words, procs.OffSequence)
	sequence.Store(sequence.Load() | 1)
	word32(s.words, 4).Store(binary.NativeEndian.Uint32(b[4:]))
	for off := 8; off < procs.SlotLen; off += 8 {
		word64(s.words, off).Store(binary.NativeEndian.Uint64(b[off:]))
	}
	sequence.Add(1)
}
