// SPDX-License-Identifier: Apache-2.0

package smc

import "testing"

func TestVendorFields(t *testing.T) {
	p := NewProposal(Local{GID: GID{1}, CHID: CHIDLoopback, UEIDs: []EID{{'A'}}, Release: 1})
	if p.Process() != 0 {
		t.Error("a Proposal that says nothing names process", p.Process())
	}
	p.SetProcess(0x12345678)
	b, err := p.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	if have := [8]byte(b[52:60]); have != [8]byte{0x02, 'I', 'S', 0x12, 0x34, 0x56, 0x78, 0} {
		t.Errorf("offset 52: % x", have)
	}
	q, err := ParseProposal(b)
	if err != nil || q.Process() != 0x12345678 {
		t.Errorf("parsed: process %#x, %v", q.Process(), err)
	}
	q.VendorOUI[0]++
	if q.Process() != 0 {
		t.Error("another vendor's options name process", q.Process())
	}

	a := AcceptConfirm{
		Type: MsgAccept, Version: V2, TypeV1: PathD, FirstContact: true, FCE: &FirstContactExt{Release: 1, VendorExpOptions: 7},
	}
	a.SetBit(0x1234, true)
	a.FCE.SetPage(0x0102030405060708)
	if b, err = a.AppendTo(nil); err != nil {
		t.Fatal(err)
	}
	if [2]byte(b[26:28]) != [2]byte{0x92, 0x34} || [12]byte(b[114:126]) != [12]byte{0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8} {
		t.Errorf("bit and page: % x … % x", b[26:28], b[114:126])
	}
	c, err := ParseAcceptConfirm(b)
	if err != nil || c.Bit() != 0x1234 || !c.PageOnly() || c.FCE.Page() != 0x0102030405060708 {
		t.Errorf("parsed: %+v, %v", c, err)
	}
	if a.SetBit(0xFFFF, false); a.Bit() != 0x7FFF || a.PageOnly() {
		t.Errorf("bit %#x, page only %v", a.Bit(), a.PageOnly())
	}
}
