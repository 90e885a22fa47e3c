// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"testing"
)

func addMessages(f *testing.F, types ...MsgType) {
	for _, m := range messages(f) {
		for _, t := range types {
			if MsgType(m[offType]) == t {
				f.Add(m)
			}
		}
	}
}

// fuzzMessage parses b as a message of one type; what is accepted must be the
// same after another round.
func fuzzMessage(t *testing.T, b []byte, typ MsgType) {
	if len(b) > offType {
		b[offType] = byte(typ)
	}
	checkStable(t, b)
}

func FuzzProposal(f *testing.F) {
	addMessages(f, MsgProposal)
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, MsgProposal)
		if p, err := ParseProposal(b); err == nil {
			_, _ = AnswerProposal(&p, testLocal())
			_, _ = AnswerProposal(&p, nil)
		}
	})
}

func FuzzAcceptConfirm(f *testing.F) {
	addMessages(f, MsgAccept, MsgConfirm)
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzMessage(t, b, MsgAccept)
		if a, err := ParseAcceptConfirm(b); err == nil {
			p := NewProposal(*testLocal())
			_, _ = CheckAccept(&p, &a)
			_, _ = CheckConfirm(testAccept(MsgAccept), &a)
			if a.FCE != nil {
				_ = a.FCE.Host()
			}
		}
	})
}

func FuzzDecline(f *testing.F) {
	addMessages(f, MsgDecline)
	f.Fuzz(func(t *testing.T, b []byte) { fuzzMessage(t, b, MsgDecline) })
}

func FuzzHeader(f *testing.F) {
	addMessages(f, MsgProposal, MsgAccept, MsgConfirm, MsgDecline)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err == nil && (h.Length < HeaderLen+TrailerLen || h.Length > MaxMessageLen) {
			t.Errorf("%+v", h)
		}
		checkStable(t, b)
	})
}

// FuzzWords gives an honest side two words of a peer that writes anything.
// Whatever is accepted keeps both rings' arithmetic in bounds, and further
// words keep doing so.
func FuzzWords(f *testing.F) {
	f.Add(uint64(0), uint64(0), uint64(0), uint64(0), uint32(ring), uint32(0), uint32(0))
	f.Add(ProducerWord(Cursor{0, 100}), ConsumerWord(Cursor{0, 50}, WriteBlocked, done),
		ProducerWord(Cursor{1, 5}), ConsumerWord(Cursor{1, 0}, 0, done|closed), uint32(ring), uint32(60), uint32(9000))
	f.Add(^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), uint32(1<<31), ^uint32(0), ^uint32(0))
	f.Fuzz(func(t *testing.T, p1, c1, p2, c2 uint64, size, read, sent uint32) {
		size = size%(1<<31) + 1
		var r RxCtrl
		rd := Cursor{}
		wr := Cursor{}.Add(sent%(size+1), size)
		for _, w := range [][2]uint64{{p1, c1}, {p2, c2}} {
			before := r
			n, err := r.UpdateProducer(w[0], rd, size)
			if err != nil && r != before {
				t.Fatalf("changed by a refused word: %+v, %+v", before, r)
			}
			if n > size || r.Prod.Count >= size {
				t.Fatalf("%d readable of %d, %+v", n, size, r)
			}
			confirmed := rd
			if n > 0 {
				rd = rd.Add(read%(n+1), size)
			}
			if rd.Count >= size {
				t.Fatalf("reader at %v of %d", rd, size)
			}
			before = r
			space, err := r.UpdateConsumer(w[1], wr, size)
			if err != nil && r != before {
				t.Fatalf("changed by a refused word: %+v, %+v", before, r)
			}
			if space > size || r.Cons.Count >= size {
				t.Fatalf("%d free of %d, %+v", space, size, r)
			}
			wr = wr.Add(min(sent, space), size)
			ConsumerUpdate(size, confirmed, rd, r.Prod, r.ProducerFlags, false)
			m := Machine{State: Active}
			m.Received(r.StateFlags)
			m.Close(n > 0)
		}
	})
}

// FuzzAdvance compares Advance with plain arithmetic on positions.
func FuzzAdvance(f *testing.F) {
	f.Add(uint16(0), uint32(0), uint16(0), uint32(0), uint32(ring))
	f.Add(uint16(0xFFFF), uint32(5), uint16(0), uint32(5), uint32(ring))
	f.Fuzz(func(t *testing.T, ow uint16, oc uint32, nw uint16, nc uint32, size uint32) {
		size = size%(1<<31) + 1
		old, new := Cursor{ow, oc % size}, Cursor{nw, nc}
		dist := (int64(nw-ow))*int64(size) + int64(nc) - int64(old.Count)
		valid := nc < size && dist >= 0 && dist <= int64(size)
		n, err := Advance(old, new, size)
		if valid != (err == nil) || valid && int64(n) != dist {
			t.Fatalf("%v to %v of %d: %d, %v; distance %d", old, new, size, n, err, dist)
		}
		if valid && old.Add(n, size) != new {
			t.Fatalf("%v + %d of %d is not %v", old, n, size, new)
		}
	})
}
