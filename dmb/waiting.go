// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"encoding/binary"
	"sync/atomic"
)

// A Side is one of the two directions in which a side of a connection can wait. It has a byte of the wait state of its own.
type Side int

const (
	Reader Side = 0 // waits for bytes
	Writer Side = 1 // waits for space
)

// A Wait says how a side waits (docs/dmb-format.md 1.4).
type Wait uint8

const (
	Awake   Wait = 0 // it does not: send no signal
	OnFutex Wait = 1 // on the signal sequence of its DMB
	OnBell  Wait = 2 // on its bell
	OnPage  Wait = 3 // on the doorbell page of its link group
)

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// shift returns where the side's byte lies in the 32-bit word: byte 28 is the reader's and byte 29 the writer's, on every
// host.
func (s Side) shift() uint {
	if littleEndian {
		return 8 * uint(s)
	}
	return 24 - 8*uint(s)
}

// waitWord is the wait state: a field for each side of whoever writes the DMB. The writer sets its fields, the DMB's owner
// clears them, so every change is by compare-and-swap of the whole word.
type waitWord struct{ *atomic.Uint32 }

func (w waitWord) get(s Side) Wait { return Wait(w.Load() >> s.shift()) }

func (w waitWord) set(s Side, v Wait) {
	for {
		old := w.Load()
		if Wait(old>>s.shift()) == v {
			return
		}
		if w.CompareAndSwap(old, with(old, s, v)) {
			return
		}
	}
}

// clear makes the side awake if it waits as it is said to, and reports whether it did.
func (w waitWord) clear(s Side, from Wait) bool {
	for {
		old := w.Load()
		if Wait(old>>s.shift()) != from {
			return false
		}
		if w.CompareAndSwap(old, with(old, s, Awake)) {
			return true
		}
	}
}

func with(word uint32, s Side, v Wait) uint32 {
	return word&^(0xFF<<s.shift()) | uint32(v)<<s.shift()
}
