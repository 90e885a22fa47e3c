// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
)

// put16 returns b with the big-endian number v at off.
func put16(b []byte, off int, v uint16) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint16(b[off:], v)
	return b
}

func put8(b []byte, off int, v byte) []byte {
	b = bytes.Clone(b)
	b[off] = v
	return b
}

func TestProposalLies(t *testing.T) {
	good, _ := goldenProposal(goldenEID).AppendTo(nil)
	all, _ := vendorProposal().AppendTo(nil)
	v1, _ := v1Proposal().AppendTo(nil)
	for _, test := range []struct {
		name string
		b    []byte
	}{
		{"iparea_offset 41", put16(good, offPropIPArea, 41)},
		{"iparea_offset 0 with prefixes", put16(all, offPropIPArea, 0)},
		{"iparea_offset 0xffff", put16(all, offPropIPArea, 0xFFFF)},
		{"no path in version 1", put8(v1, offTypes, 0x12)},
		{"iparea_offset in version 1", put16(v1, offPropIPArea, 8)},
		{"9 IPv6 prefixes", put8(v1, 80+offPrefixCount, 9)},
		{"1 IPv6 prefix too many", put8(v1, 80+offPrefixCount, 2)},
		{"1 IPv6 prefix too few", put8(v1, 80+offPrefixCount, 0)},
		{"prefixes announced, none there", put8(good, offTypes, 0x25)},
		{"v2_ext_offset 0, extension there", put16(good, offPropV2Ext, 0)},
		{"v2_ext_offset 173", put16(good, offPropV2Ext, maxV2ExtOffset+1)},
		{"v2_ext_offset 172, beyond the end", put16(good, offPropV2Ext, maxV2ExtOffset)},
		{"2 EIDs, 1 there", put8(good, 80, 2)},
		{"no EID, 1 there", put8(good, 80, 0)},
		{"9 EIDs", put8(good, 80, 9)},
		{"255 EIDs", put8(good, 80, 255)},
		{"3 GIDs, 2 there", put8(good, 81, 3)},
		{"1 GID, 2 there", put8(good, 81, 1)},
		{"9 GIDs", put8(good, 81, 9)},
		{"smcd_v2_ext_offset one too far", put16(good, 86, 65)},
		{"smcd_v2_ext_offset 288, beyond the end", put16(good, 86, maxV2DExtOffset)},
	} {
		if p, err := ParseProposal(test.b); err == nil {
			t.Errorf("%s: %+v", test.name, p)
		}
	}
}

// Offsets that say "none" where the types want an extension lead to a Decline,
// as far as the length allows.
func TestProposalWithoutExtension(t *testing.T) {
	good, _ := goldenProposal(goldenEID).AppendTo(nil)
	for _, off := range []uint16{0, maxV2DExtOffset + 1, 0xFFFF} {
		p, err := ParseProposal(put16(good, 86, off))
		if err != nil || p.V2 == nil || p.V2.SMCD != nil {
			t.Errorf("smcd_v2_ext_offset %d: %+v, %v", off, p, err)
		}
	}
	none := &Proposal{Version: V2, TypeV1: PathNone, TypeV2: PathD}
	short, _ := none.AppendTo(nil)
	for _, off := range []uint16{0, maxV2ExtOffset + 1} {
		p, err := ParseProposal(put16(short, offPropV2Ext, off))
		if err != nil || p.V2 != nil {
			t.Errorf("v2_ext_offset %d: %+v, %v", off, p, err)
		}
	}
	if _, err := ParseProposal(put16(short, offPropV2Ext, 28)); err == nil {
		t.Error("v2_ext_offset 28 leads out of the message")
	}
}

func TestProposalRefusesToEncode(t *testing.T) {
	for name, edit := range map[string]func(p *Proposal){
		"version 0":       func(p *Proposal) { p.Version = 0 },
		"version 16":      func(p *Proposal) { p.Version = 16 },
		"version 1":       func(p *Proposal) { p.Version = V1 },
		"no v1 path":      func(p *Proposal) { *p = Proposal{Version: V1, TypeV1: PathNone} },
		"iparea":          func(p *Proposal) { p.IPAreaOffset = 39 },
		"iparea too far":  func(p *Proposal) { p.IPAreaOffset = 41 },
		"9 prefixes":      func(p *Proposal) { p.Prefix.IPv6 = make([]IPv6Prefix, 9) },
		"no v2 path":      func(p *Proposal) { p.TypeV2 = PathNone },
		"no v2 D path":    func(p *Proposal) { p.TypeV2 = PathR },
		"9 EIDs":          func(p *Proposal) { p.V2.UEIDs = make([]EID, 9) },
		"9 GIDs":          func(p *Proposal) { p.V2.SMCD.GIDs = make([]GIDCHID, 9) },
		"release 16":      func(p *Proposal) { p.V2.Release = 16 },
		"EIDs, not SMC-D": func(p *Proposal) { p.V2.SMCD = nil; p.V2.UEIDs = make([]EID, 9) },
	} {
		p := vendorProposal()
		edit(p)
		if b, err := p.AppendTo(nil); err == nil {
			t.Errorf("%s: encoded as %x", name, b)
		}
	}
}

// The longest Proposal there can be fills the kernel's receive area.
func TestLongestProposal(t *testing.T) {
	p := vendorProposal()
	p.Prefix.IPv6 = make([]IPv6Prefix, maxV6Prefixes)
	p.V2.UEIDs = make([]EID, maxCLCUEIDs)
	p.V2.SMCD.GIDs = make([]GIDCHID, maxGIDEntries)
	b, err := p.AppendTo(nil)
	if err != nil || len(b) != MaxMessageLen {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if got, err := ParseProposal(b); err != nil || !reflect.DeepEqual(&got, p) {
		t.Errorf("%+v, %v", got, err)
	}
	if off := binary.BigEndian.Uint16(b[offPropV2Ext:]); off != maxV2ExtOffset {
		t.Errorf("v2_ext_offset %d", off)
	}
}

func TestDevices(t *testing.T) {
	const virtio = 0xFF01
	for _, test := range []struct {
		name    string
		entries []GIDCHID
		want    []OfferedDevice
	}{
		{"none", nil, nil},
		{"loopback", []GIDCHID{{1, 0xFFFF}, {2, 0xFFFF}}, []OfferedDevice{{GIDFromHalves(1, 2), 0xFFFF}}},
		{"native", []GIDCHID{{1, 7}}, []OfferedDevice{{GIDFromHalves(1, 0), 7}}},
		{"half", []GIDCHID{{1, 0xFFFF}}, nil},
		{"half, then native", []GIDCHID{{1, 0xFFFF}, {2, 7}}, []OfferedDevice{{GIDFromHalves(2, 0), 7}}},
		{"half, then another", []GIDCHID{{1, 0xFFFF}, {2, virtio}, {3, virtio}}, []OfferedDevice{{GIDFromHalves(2, 3), virtio}}},
		{"native between", []GIDCHID{{9, 7}, {1, 0xFFFF}, {2, 0xFFFF}, {8, 6}},
			[]OfferedDevice{{GIDFromHalves(9, 0), 7}, {GIDFromHalves(1, 2), 0xFFFF}, {GIDFromHalves(8, 0), 6}}},
	} {
		e := &SMCDV2Extension{GIDs: test.entries}
		if got := e.Devices(); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
