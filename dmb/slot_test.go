// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// aligned stands for a mapping of one page.
func aligned() []byte {
	words := make([]uint64, pageSize/8)
	return bytesOf(words)
}

func TestSlots(t *testing.T) {
	b := &Block{mapping: aligned()}
	b.slots.init(b.mapping)
	const there = (pageSize - procs.OffSlots) / procs.SlotLen
	var all []*Slot
	for range there {
		s, err := b.NewSlot()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if _, err := b.NewSlot(); !errors.Is(err, ErrNoSlot) {
		t.Errorf("one more: %v", err)
	}
	want := procs.Conn{Role: procs.Client, State: smc.Active, Local: netip.MustParseAddrPort("1.2.3.4:5"), Token: 6}
	all[3].SetConn(&want)
	raw := b.mapping[place(3):][:procs.SlotLen]
	_, got, _, err := procs.ParseSlot(raw)
	if err != nil || got.Token != 6 || got.Local != want.Local {
		t.Errorf("%+v, %v", got, err)
	}
	if s := binary.NativeEndian.Uint32(raw); s == 0 || s%2 != 0 {
		t.Errorf("sequence %d", s)
	}
	all[3].Free()
	all[3].Free()
	all[3].SetConn(&want)
	if kind, _, _, err := procs.ParseSlot(raw); kind != procs.Free || err != nil {
		t.Errorf("after Free: %d, %v", kind, err)
	}
	if s, err := b.NewSlot(); err != nil || s.n != 3 {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := b.NewSlot(); err == nil {
		t.Error("a place was given out twice")
	}
}

func TestPage(t *testing.T) {
	r := &Registered{mapping: aligned()}
	page := r.Page()
	if r.mapping[0] != pageType || (&Registered{mapping: make([]byte, 2*pageSize)}).Page() != nil {
		t.Error("a page is told by its size")
	}
	for _, bit := range []uint16{1, 63, 64, PageBits - 1} {
		page.Set(bit)
		page.Set(bit)
		if got := page.Take(int(bit / 64)); got != 1<<(bit%64) {
			t.Errorf("bit %d: %#x", bit, got)
		}
		if got := page.Take(int(bit / 64)); got != 0 {
			t.Errorf("bit %d stays: %#x", bit, got)
		}
	}
	for _, d := range []struct{ set, want time.Duration }{{1, 1}, {Working - 1, Working - 1}, {time.Hour, Working}, {-1, 0}} {
		page.SetSlice(d.set)
		if got := page.Slice(); got != d.want {
			t.Errorf("a slice of %d ns reads as %d", d.set, got)
		}
	}
	page.SetWaiting(OnBell)
	if w := page.ClearWaiting(); w != OnBell {
		t.Errorf("waits %d", w)
	}
	if w := page.ClearWaiting(); w != Awake {
		t.Errorf("waits %d after it was cleared", w)
	}
}
