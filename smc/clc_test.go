// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"syscall"
	"testing"
)

// vendorProposal has every field of every area set.
func vendorProposal() *Proposal {
	return &Proposal{
		Version: V2, TypeV1: PathBoth, TypeV2: PathBoth,
		IDForPeer: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}, RoCEGID: [16]byte{9}, MAC: [6]byte{10},
		IPAreaOffset: 40, ISM: GIDCHID{0x1122334455667788, 0x0123},
		VendorOUI: [3]byte{0xA1, 0xA2, 0xA3}, VendorExpOptions: [5]byte{0xB1, 0xB2, 0xB3, 0xB4, 0xB5},
		Prefix: Prefix{Subnet: [4]byte{10, 1, 0, 0}, Len: 16, IPv6: []IPv6Prefix{{[16]byte{0x20, 1}, 64}, {[16]byte{0xfd}, 8}}},
		V2: &V2Extension{
			Release: 1, SEID: true, RoCEGID: [16]byte{11}, MaxConns: 16, MaxLinks: 2, FeatureMask: 0x8001,
			UEIDs: []EID{mustEID("A"), mustEID("B")},
			SMCD:  &SMCDV2Extension{SystemEID: EID{'S'}, GIDs: []GIDCHID{{1, 0x0042}, {2, 0xFFFF}, {3, 0xFFFF}}},
		},
	}
}

func v1Proposal() *Proposal {
	return &Proposal{
		Version: V1, TypeV1: PathD, IPAreaOffset: 40, ISM: GIDCHID{7, 0},
		VendorOUI: [3]byte{1, 2, 3}, Prefix: Prefix{Subnet: [4]byte{127}, Len: 8, IPv6: []IPv6Prefix{{[16]byte{1}, 128}}},
	}
}

// messages returns, beside those of the captures, messages of every form.
func messages(t testing.TB) [][]byte {
	t.Helper()
	vendor := goldenAccept(MsgAccept, true, 1, 0x300)
	vendor.Reserved4 = [2]byte{0xC1, 0xC2}
	vendor.FCE.V2Direct = true
	vendor.FCE.MaxConns, vendor.FCE.MaxLinks = 3, 4
	vendor.FCE.VendorExpOptions = 0xD1D2D3D4
	vendor.FCE.Reserved4 = [8]byte{0xE1, 0, 0, 0, 0, 0, 0, 0xE8}
	release0 := goldenAccept(MsgConfirm, true, 2, 0x400)
	release0.FCE = &FirstContactExt{OSType: OSZOS, Hostname: PadHostname("zos")}
	v1 := &AcceptConfirm{Type: MsgAccept, Version: V1, TypeV1: PathD, FirstContact: true, GID: GIDFromHalves(5, 0), Token: 6, DMBESize: 6}
	syncErr := NewDecline(V1, DeclSyncErr)
	syncErr.IDForPeer = [8]byte{1, 0, 0, 0, 0, 0, 0, 2}
	more := NewDecline(V2, DeclMem)
	more.DiagnosisV2 = [4]DeclineCode{1, 2, 3, DeclNoRoute}
	noneV2 := &Proposal{Version: V2, TypeV1: PathNone, TypeV2: PathNone}
	noExt := &Proposal{Version: V2, TypeV1: PathNone, TypeV2: PathD}
	noDExt := goldenProposal(goldenEID)
	noDExt.V2.SMCD = nil
	v1R := &Proposal{Version: V1, TypeV1: PathR, Prefix: Prefix{Len: 24}}

	ms := clcMessages(t)
	for _, m := range []any{
		vendorProposal(), v1Proposal(), v1R, noneV2, noExt, noDExt,
		vendor, release0, v1, &syncErr, &more,
	} {
		b, err := encodeAny(m)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		got, err := parseAny(b)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("got  %+v\nwant %+v", got, m)
		}
		ms = append(ms, b)
	}
	return ms
}

func TestLengths(t *testing.T) {
	v1 := &AcceptConfirm{Version: V1}
	r0 := &AcceptConfirm{Version: V2, FCE: &FirstContactExt{}}
	d1, d2 := NewDecline(V1, 0), NewDecline(V2, 0)
	for _, test := range []struct{ got, want int }{
		{goldenProposal().Len(), 192},
		{goldenProposal(goldenEID, goldenEID).Len(), 256},
		{goldenAccept(MsgAccept, false, 0, 0).Len(), 78},
		{goldenAccept(MsgAccept, true, 0, 0).Len(), 130},
		{v1.Len(), 48}, {r0.Len(), 114}, {d1.Len(), 28}, {d2.Len(), 44},
	} {
		if test.got != test.want {
			t.Errorf("%d bytes, want %d", test.got, test.want)
		}
	}
}

// Vendor fields lie where other implementations look for them.
func TestVendorFieldOffsets(t *testing.T) {
	b, _ := vendorProposal().AppendTo(nil)
	if !bytes.Equal(b[52:60], []byte{0xA1, 0xA2, 0xA3, 0xB1, 0xB2, 0xB3, 0xB4, 0xB5}) {
		t.Errorf("Proposal: %x", b[52:60])
	}
	a := goldenAccept(MsgAccept, true, 0, 0)
	a.Reserved4 = [2]byte{0xC1, 0xC2}
	a.FCE.VendorExpOptions = 0xD1D2D3D4
	a.FCE.Reserved4 = [8]byte{0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8}
	b, _ = a.AppendTo(nil)
	if !bytes.Equal(b[26:28], a.Reserved4[:]) {
		t.Errorf("Accept: %x", b[26:28])
	}
	if want := append([]byte{0xD1, 0xD2, 0xD3, 0xD4}, a.FCE.Reserved4[:]...); !bytes.Equal(b[114:126], want) {
		t.Errorf("first-contact extension: %x", b[114:126])
	}
}

// AppendTo appends: what was there stays, and errors leave b alone.
func TestAppendTo(t *testing.T) {
	d := NewDecline(V2, DeclMem)
	b := d.AppendTo([]byte("before"))
	if string(b[:6]) != "before" || len(b) != 6+44 {
		t.Errorf("%q", b)
	}
	bad := goldenAccept(MsgAccept, false, 0, 0)
	bad.FirstContact = true
	if b, err := bad.AppendTo(b[:6]); err == nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
}

// Every prefix of a message is refused, as it is and with a header and trailer
// that agree with it.
func TestCutEverywhere(t *testing.T) {
	for _, m := range messages(t) {
		for n := range m {
			if _, err := parseAny(m[:n]); !errors.Is(err, syscall.EPROTO) {
				t.Fatalf("%x cut to %d: %v", m, n, err)
			}
			if n < HeaderLen+TrailerLen {
				continue
			}
			cut := bytes.Clone(m[:n])
			binary.BigEndian.PutUint16(cut[offLength:], uint16(n))
			copy(cut[n-TrailerLen:], eyecatcherD[:])
			if _, err := parseAny(cut); !errors.Is(err, syscall.EPROTO) {
				t.Fatalf("%x cut to %d with header: %v", m, n, err)
			}
		}
		if _, err := parseAny(append(bytes.Clone(m), 0)); !errors.Is(err, syscall.EPROTO) {
			t.Fatalf("%x and a byte more: %v", m, err)
		}
	}
}

// checkStable parses b; what it gives must survive another round.
func checkStable(t *testing.T, b []byte) {
	t.Helper()
	m, err := parseAny(b)
	if err != nil {
		if !errors.Is(err, syscall.EPROTO) {
			t.Fatalf("%x: %v is not EPROTO", b, err)
		}
		return
	}
	if a, ok := m.(*AcceptConfirm); ok && a.TypeV1 == PathR {
		return
	}
	enc, err := encodeAny(m)
	if err != nil {
		t.Fatalf("%x: parsed, but not encoded: %v", b, err)
	}
	if len(enc) > len(b) {
		t.Fatalf("%x: longer when encoded: %x", b, enc)
	}
	again, err := parseAny(enc)
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Fatalf("%x:\nfirst  %+v\nsecond %+v, %v", b, m, again, err)
	}
}

func TestEveryByteLies(t *testing.T) {
	for _, m := range messages(t) {
		for i := range m {
			for _, x := range []byte{0x00, 0xFF, m[i] ^ 0x01, m[i] ^ 0x80, m[i] + 1, m[i] - 1, m[i] ^ 0x08} {
				b := bytes.Clone(m)
				b[i] = x
				checkStable(t, b)
			}
		}
	}
}

func TestBadHeader(t *testing.T) {
	good := clcMessages(t)[0]
	for _, test := range []struct {
		name string
		edit func(b []byte)
	}{
		{"eyecatcher", func(b []byte) { b[0] = 'S' }},
		{"type 0", func(b []byte) { b[4] = 0 }},
		{"type 5", func(b []byte) { b[4] = 5 }},
		{"version 0", func(b []byte) { b[7] = 0x06 }},
		{"length 0", func(b []byte) { b[5], b[6] = 0, 0 }},
		{"length 51", func(b []byte) { b[5], b[6] = 0, 51 }},
		{"length 653", func(b []byte) { b[5], b[6] = 0x02, 0x8D }},
		{"length 65535", func(b []byte) { b[5], b[6] = 0xFF, 0xFF }},
		{"Decline of 44 in version 1", func(b []byte) { b[4], b[5], b[6], b[7] = 4, 0, 44, 0x10 }},
		{"Decline of 28 in version 2", func(b []byte) { b[4], b[5], b[6], b[7] = 4, 0, 28, 0x20 }},
		{"Accept of 47", func(b []byte) { b[4], b[5], b[6] = 2, 0, 47 }},
	} {
		b := bytes.Clone(good)
		test.edit(b)
		if h, err := ParseHeader(b[:HeaderLen]); !errors.Is(err, syscall.EPROTO) {
			t.Errorf("%s: %+v, %v", test.name, h, err)
		}
	}
}

// Either eyecatcher is good at either end.
func TestEyecatchers(t *testing.T) {
	for _, m := range clcMessages(t)[:3] {
		b := bytes.Clone(m)
		copy(b, eyecatcherD[:])
		copy(b[len(b)-4:], eyecatcherR[:])
		if _, err := parseAny(b); err != nil {
			t.Error(err)
		}
		b[len(b)-1]++
		if _, err := parseAny(b); err == nil {
			t.Error("bad trailer accepted")
		}
	}
	d := NewDecline(V2, DeclMem)
	b := d.AppendTo(nil)
	b[len(b)-1]++
	if _, err := ParseDecline(b); err != nil {
		t.Errorf("the kernel does not check a Decline's trailer: %v", err)
	}
}

func TestErrorText(t *testing.T) {
	_, err := ParseDecline([]byte{1, 2})
	if err == nil || err.Error() != "CLC header: 2 bytes, need 8" {
		t.Error(err)
	}
	_, err = ParseProposal(clcMessages(t)[1])
	if err == nil || err.Error() != "CLC Accept: expected a Proposal" {
		t.Error(err)
	}
}

func TestWrongType(t *testing.T) {
	ms := clcMessages(t)
	if _, err := ParseAcceptConfirm(ms[0]); err == nil {
		t.Error("Proposal taken for an Accept")
	}
	if _, err := ParseProposal(ms[1]); err == nil {
		t.Error("Accept taken for a Proposal")
	}
	if _, err := ParseDecline(ms[1]); err == nil {
		t.Error("Accept taken for a Decline")
	}
}
