// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// frame returns a message of n bytes, zero but for header and trailer.
func frame(t MsgType, n int, types byte) []byte {
	h := Header{Type: t, Length: n, Version: types >> 4, TypeV2: PathType(types >> 2 & 3), TypeV1: PathType(types & 3)}
	b, _ := appendFrame(nil, h, eyecatcherD)
	return b
}

func TestAcceptLengths(t *testing.T) {
	for _, test := range []struct {
		types byte // byte 7 of the header
		n     int
		ok    bool
	}{
		{0x11, 48, true}, {0x19, 48, true}, {0x11, 49, false}, {0x11, 78, false},
		{0x21, 77, false}, {0x21, 78, true}, {0x21, 79, true}, {0x21, 652, true}, {0x21, 48, false},
		{0x29, 78, false}, {0x29, 113, false}, {0x29, 114, true}, {0x29, 130, true},
		{0x10, 68, true}, {0x10, 48, false}, {0x20, 107, false}, {0x20, 108, true}, {0x28, 200, true},
		{0x22, 78, false}, {0x23, 78, false}, {0x12, 48, false}, {0x13, 68, false},
		{0x31, 78, true}, {0xF1, 78, true}, {0x31, 48, false},
	} {
		_, err := ParseAcceptConfirm(frame(MsgAccept, test.n, test.types))
		if (err == nil) != test.ok {
			t.Errorf("byte 7 %02x, length %d: %v", test.types, test.n, err)
		}
	}
	b := frame(MsgAccept, 114, 0x29)
	b[offAccFCE+offFCERelease] = OSLinux<<4 | 1
	if _, err := ParseAcceptConfirm(b); err == nil {
		t.Error("release 1 in the extension of release 0 accepted")
	}
}

// Bytes of a later release, between the known parts and the trailer, change
// nothing.
func TestAcceptTail(t *testing.T) {
	for _, m := range clcMessages(t) {
		want, err := ParseAcceptConfirm(m)
		if err != nil {
			continue
		}
		b := append(bytes.Clone(m[:len(m)-TrailerLen]), "later"...)
		b = append(b, m[len(m)-TrailerLen:]...)
		binary.BigEndian.PutUint16(b[offLength:], uint16(len(b)))
		got, err := ParseAcceptConfirm(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestAcceptRefusesToEncode(t *testing.T) {
	for name, edit := range map[string]func(a *AcceptConfirm){
		"type":           func(a *AcceptConfirm) { a.Type = MsgProposal },
		"version 0":      func(a *AcceptConfirm) { a.Version = 0 },
		"version 16":     func(a *AcceptConfirm) { a.Version = 16 },
		"SMC-R":          func(a *AcceptConfirm) { a.TypeV1 = PathR },
		"size":           func(a *AcceptConfirm) { a.DMBESize = 16 },
		"v1 with FCE":    func(a *AcceptConfirm) { a.Version = V1 },
		"FCE, no flag":   func(a *AcceptConfirm) { a.FirstContact = false },
		"flag, no FCE":   func(a *AcceptConfirm) { a.FCE = nil },
		"FCE release 16": func(a *AcceptConfirm) { a.FCE.Release = 16 },
		"FCE OS 16":      func(a *AcceptConfirm) { a.FCE.OSType = 16 },
	} {
		a := goldenAccept(MsgAccept, true, 1, 1)
		edit(a)
		if b, err := a.AppendTo(nil); err == nil {
			t.Errorf("%s: encoded as %x", name, b)
		}
	}
}

func TestHostname(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"smcguest", "smcguest"},
		{"", ""},
		{"0123456789012345678901234567890123456789", "01234567890123456789012345678901"},
		{"näme", ""},
	} {
		f := FirstContactExt{Hostname: PadHostname(test.in)}
		if got := f.Host(); got != test.want {
			t.Errorf("%q: got %q, want %q", test.in, got, test.want)
		}
	}
	if got := (&FirstContactExt{}).Host(); got != "" {
		t.Errorf("zero: %q", got)
	}
}

func TestDeclineForms(t *testing.T) {
	for _, test := range []struct {
		name  string
		d     Decline
		byte7 byte
	}{
		{"v1", NewDecline(V1, DeclMem), 0x10},
		{"v1 out of sync", NewDecline(V1, DeclSyncErr), 0x18},
		{"v2", NewDecline(V2, DeclMem), 0x20},
		{"v2 out of sync", NewDecline(V2, DeclSyncErr), 0x28},
	} {
		b := test.d.AppendTo(nil)
		if b[7] != test.byte7 {
			t.Errorf("%s: byte 7 is %02x, want %02x", test.name, b[7], test.byte7)
		}
		if got, err := ParseDecline(b); err != nil || got != test.d {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
		b[7] |= byte(PathNone)
		if _, err := ParseDecline(b); err == nil {
			t.Errorf("%s: without a path accepted", test.name)
		}
	}
}
