// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
)

// ring is the length of the smallest SMC ring.
const ring = MinBufSize - CDCLen

func TestWords(t *testing.T) {
	c := Cursor{Wrap: 0x1234, Count: 0x56789ABC}
	const pf, sf = WriteBlocked | ConsCursUpdReq, PeerDoneWriting
	w := ConsumerWord(c, pf, sf)

	// The bytes are the same on every host but for the order within the
	// numbers.
	for _, host := range []struct {
		little bool
		order  interface {
			binary.ByteOrder
			binary.AppendByteOrder
		}
	}{{true, binary.LittleEndian}, {false, binary.BigEndian}, {littleEndian, binary.NativeEndian}} {
		word := packWord(host.little, c, pf, sf)
		want := host.order.AppendUint16(nil, c.Wrap)
		want = host.order.AppendUint32(want, c.Count)
		want = append(want, 0x90, 0x80)
		if got := host.order.AppendUint64(nil, word); !bytes.Equal(got, want) {
			t.Errorf("%v: bytes %x, want %x", host.order, got, want)
		}
		if gc, gp, gs := unpackWord(host.little, word); gc != c || gp != pf || gs != sf {
			t.Errorf("%v: %v %x %x", host.order, gc, gp, gs)
		}
	}
	if gc, gp, gs := ParseConsumerWord(w); gc != c || gp != pf || gs != sf {
		t.Errorf("%v %x %x", gc, gp, gs)
	}
	p := ProducerWord(c)
	if gc, pf, sf := ParseConsumerWord(p); gc != c || pf != 0 || sf != 0 {
		t.Errorf("producer word %x", p)
	}
	if ParseProducerWord(w) != c {
		t.Error("flag bytes disturb the producer word")
	}
}

func TestCursorAddDiff(t *testing.T) {
	for _, start := range []Cursor{{0, 0}, {7, ring - 1}, {0xFFFF, ring - 1}, {0xFFFF, ring / 2}} {
		for _, n := range []uint32{0, 1, 2, ring / 2, ring - 1, ring} {
			end := start.Add(n, ring)
			if end.Count >= ring {
				t.Fatalf("%v + %d = %v", start, n, end)
			}
			if got := start.Diff(end, ring); got != n {
				t.Errorf("%v to %v: Diff %d, want %d", start, end, got, n)
			}
			if got := start.diffLarge(end, ring); got != n {
				t.Errorf("%v to %v: diffLarge %d, want %d", start, end, got, n)
			}
			if got, err := Advance(start, end, ring); got != n || err != nil {
				t.Errorf("%v to %v: Advance %d, %v, want %d", start, end, got, err, n)
			}
		}
	}
	far := Cursor{3, 5}
	if got := (Cursor{1, 4}).diffLarge(far, ring); got != ring {
		t.Errorf("diffLarge over two wraps: %d", got)
	}
	if got := far.diffLarge(Cursor{3, 4}, ring); got != 0 {
		t.Errorf("diffLarge backwards: %d", got)
	}
}

func TestAdvanceRefuses(t *testing.T) {
	for _, test := range []struct{ old, new Cursor }{
		{Cursor{0, 0}, Cursor{0, ring}},
		{Cursor{0, 0}, Cursor{0, 0xFFFFFFFF}},
		{Cursor{0, 5}, Cursor{1, ring}},
		{Cursor{0, 5}, Cursor{0, 4}},
		{Cursor{0, 5}, Cursor{1, 6}},
		{Cursor{0, 5}, Cursor{2, 0}},
		{Cursor{1, 5}, Cursor{0, 6}},
		{Cursor{0, 5}, Cursor{0xFFFF, 6}},
	} {
		n, err := Advance(test.old, test.new, ring)
		if n != 0 || !errors.Is(err, syscall.EPROTO) {
			t.Errorf("%v to %v: %d, %v", test.old, test.new, n, err)
		}
	}
	if n, err := Advance(Cursor{}, Cursor{}, 0); err == nil {
		t.Errorf("a ring of 0 bytes: %d", n)
	}
}

func TestConsumerUpdate(t *testing.T) {
	const size = 65536 - CDCLen // limit 6550
	at := func(n uint32) Cursor { return Cursor{}.Add(n, size) }
	for _, test := range []struct {
		name      string
		size      uint32
		cons      uint32
		prod      uint32
		flags     ProducerFlags
		force     bool
		want      bool
		confirmed uint32
	}{
		{"nothing read", size, 0, size, WriteBlocked, false, false, 0},
		{"limit, not above it", size, size / 10, size, WriteBlocked, false, false, 0},
		{"above it, sender has space", size, size/10 + 1, size/10 + 1, 0, false, false, 0},
		{"above it, sender blocked", size, size/10 + 1, size/10 + 1, WriteBlocked, false, true, 0},
		{"above it, half is used", size, size/10 + 1, size / 2, 0, false, true, 0},
		{"above it, less than half is used", size, size/10 + 1, size/2 - 1, 0, false, false, 0},
		{"counted from the last confirmed", size, 6000 + 6550, size, WriteBlocked, false, false, 6000},
		{"counted from the last confirmed, above", size, 6000 + 6551, size, WriteBlocked, false, true, 6000},
		{"asked for", size, 0, 0, ConsCursUpdReq, false, true, 0},
		{"forced", size, 0, 0, 0, true, true, 0},
		{"small ring: 2304", ring, 2304, ring, WriteBlocked, false, false, 0},
		{"small ring: 2305", ring, 2305, ring, WriteBlocked, false, true, 0},
		{"other flags", size, 0, 0, UrgDataPending | UrgDataPresent, false, false, 0},
	} {
		prod := Cursor{}.Add(test.prod, test.size)
		got := ConsumerUpdate(test.size, at(test.confirmed), at(test.cons), prod, test.flags, test.force)
		if got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

func TestRxCtrlProducer(t *testing.T) {
	var r RxCtrl
	step := func(prod, read Cursor, want uint32) {
		t.Helper()
		if n, err := r.UpdateProducer(ProducerWord(prod), read, ring); err != nil || n != want || r.Prod != prod {
			t.Errorf("%v read from %v: %d, %v, want %d", prod, read, n, err, want)
		}
	}
	step(Cursor{0, 0}, Cursor{}, 0)
	step(Cursor{0, 100}, Cursor{}, 100)
	step(Cursor{0, 100}, Cursor{0, 40}, 60)
	step(Cursor{1, 40}, Cursor{0, 40}, ring)
	before := r
	for _, bad := range []struct{ prod, read Cursor }{
		{Cursor{1, 39}, Cursor{1, 0}},       // backwards
		{Cursor{1, 41}, Cursor{0, 40}},      // a byte more than the ring holds
		{Cursor{1, ring}, Cursor{1, 40}},    // outside
		{Cursor{2, 41}, Cursor{1, 40}},      // too far
		{Cursor{1, 50}, Cursor{1, 60}},      // behind the reader
		{Cursor{0x8001, 50}, Cursor{1, 40}}, // far too far
	} {
		if n, err := r.UpdateProducer(ProducerWord(bad.prod), bad.read, ring); !errors.Is(err, syscall.EPROTO) || n != 0 {
			t.Errorf("%v read from %v: %d, %v", bad.prod, bad.read, n, err)
		}
		if r != before {
			t.Fatalf("%v changed %+v to %+v", bad.prod, before, r)
		}
	}
}

func TestRxCtrlConsumer(t *testing.T) {
	var r RxCtrl
	step := func(cons Cursor, pf ProducerFlags, sf StateFlags, prod Cursor, want uint32) {
		t.Helper()
		n, err := r.UpdateConsumer(ConsumerWord(cons, pf, sf), prod, ring)
		if err != nil || n != want || r.Cons != cons || r.ProducerFlags != pf || r.StateFlags != sf {
			t.Errorf("%v of %v: %d, %v, %+v, want %d", cons, prod, n, err, r, want)
		}
	}
	step(Cursor{}, 0, 0, Cursor{}, ring)
	step(Cursor{}, WriteBlocked, 0, Cursor{1, 0}, 0)
	step(Cursor{0, 10}, 0, 0, Cursor{1, 0}, 10)
	step(Cursor{0, 10}, WriteBlocked, PeerDoneWriting, Cursor{1, 10}, 0)
	step(Cursor{1, 10}, 0, PeerDoneWriting|PeerConnClosed, Cursor{1, 10}, ring)
	before := r
	for _, bad := range []struct {
		cons Cursor
		sf   StateFlags
		prod Cursor
	}{
		{Cursor{1, 10}, PeerDoneWriting, Cursor{1, 10}},                         // closed withdrawn
		{Cursor{1, 10}, PeerConnClosed | PeerConnAbort, Cursor{1, 10}},          // done withdrawn
		{Cursor{1, 9}, PeerDoneWriting | PeerConnClosed, Cursor{1, 10}},         // backwards
		{Cursor{1, 11}, PeerDoneWriting | PeerConnClosed, Cursor{1, 10}},        // read what was not written
		{Cursor{2, 0}, PeerDoneWriting | PeerConnClosed, Cursor{1, 10}},         // the same, around the end
		{Cursor{1, 0xFFFFFFFF}, PeerDoneWriting | PeerConnClosed, Cursor{2, 0}}, // outside
	} {
		n, err := r.UpdateConsumer(ConsumerWord(bad.cons, 0, bad.sf), bad.prod, ring)
		if !errors.Is(err, syscall.EPROTO) || n != 0 {
			t.Errorf("%v %x of %v: %d, %v", bad.cons, bad.sf, bad.prod, n, err)
		}
		if r != before {
			t.Fatalf("%v changed %+v to %+v", bad.cons, before, r)
		}
	}
}

func BenchmarkUpdateConsumer(b *testing.B) {
	var r RxCtrl
	var prod Cursor
	for b.Loop() {
		prod = prod.Add(1000, ring)
		if _, err := r.UpdateConsumer(ConsumerWord(prod, WriteBlocked, 0), prod, ring); err != nil {
			b.Fatal(err)
		}
	}
}
