// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"
)

// The device and host of the captures.
var (
	goldenGID  = GIDFromHalves(0xc34bbf625008fce5, 0xb7521a86b15062ae)
	goldenEID  = mustEID("SMCV2-ANCHOR-UEID.01")
	goldenHost = PadHostname("smcguest")
)

func mustEID(s string) EID {
	e, err := ParseEID(s)
	if err != nil {
		panic(err)
	}
	return e
}

// linkID returns the id whose bytes are b on the wire.
func linkID(b ...byte) uint32 { return binary.NativeEndian.Uint32(b) }

func goldenProposal(eids ...EID) *Proposal {
	p := NewProposal(Local{
		GID: goldenGID, CHID: CHIDLoopback, Active: true,
		UEIDs: eids, Release: Release, Features: FeatureEmulatedISM,
	})
	return &p
}

func goldenAccept(typ MsgType, first bool, token uint64, link uint32) *AcceptConfirm {
	a := &AcceptConfirm{
		Type: typ, Version: V2, TypeV1: PathD, FirstContact: first,
		GID: goldenGID, Token: token, DMBESize: 2, LinkID: link,
		CHID: CHIDLoopback, EID: goldenEID,
	}
	if first {
		a.FCE = &FirstContactExt{OSType: OSLinux, Release: 1, Hostname: goldenHost, FeatureMask: FeatureEmulatedISM}
	}
	return a
}

// parseAny decodes a message of any type; the result is a pointer.
func parseAny(b []byte) (any, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	switch h.Type {
	case MsgProposal:
		p, err := ParseProposal(b)
		return &p, err
	case MsgDecline:
		d, err := ParseDecline(b)
		return &d, err
	}
	a, err := ParseAcceptConfirm(b)
	return &a, err
}

// encodeAny is the reverse of parseAny, and checks Len.
func encodeAny(m any) (b []byte, err error) {
	var n int
	switch m := m.(type) {
	case *Proposal:
		n = m.Len()
		b, err = m.AppendTo(nil)
	case *AcceptConfirm:
		n = m.Len()
		b, err = m.AppendTo(nil)
	case *Decline:
		n = m.Len()
		b = m.AppendTo(nil)
	}
	if err == nil && len(b) != n {
		err = fmt.Errorf("Len is %d, encoded are %d bytes", n, len(b))
	}
	return b, err
}

func TestGolden(t *testing.T) {
	decline := NewDecline(V2, DeclNoUEID)
	proposal := goldenProposal(goldenEID)
	tests := []struct {
		capture string
		want    []any
		lens    []int
	}{
		{"smcd1.pcap", []any{
			proposal,
			goldenAccept(MsgAccept, true, 0x65b4b22d61c27ca8, linkID(0, 1, 0, 0)),
			goldenAccept(MsgConfirm, true, 0x143228e9899f839c, linkID(0, 2, 0, 0)),
		}, []int{224, 130, 130}},
		{"smcd2.pcap", []any{
			proposal,
			goldenAccept(MsgAccept, false, 0x65b4b22d61c27ca8, linkID(0, 1, 0, 0)),
			goldenAccept(MsgConfirm, false, 0x02770531ed7b5cdf, linkID(0, 1, 0, 0)),
			proposal,
			goldenAccept(MsgAccept, false, 0xab8ece266549dd22, linkID(0, 1, 0, 0)),
			goldenAccept(MsgConfirm, false, 0x4645ce4798b5ef0b, linkID(0, 1, 0, 0)),
		}, []int{224, 78, 78, 224, 78, 78}},
		{"noeid.pcap", []any{goldenProposal(), &decline}, []int{192, 44}},
	}
	for _, test := range tests {
		t.Run(test.capture, func(t *testing.T) {
			payloads := readPcap(t, test.capture)
			if len(payloads) < len(test.want) {
				t.Fatalf("%d payloads, want at least %d", len(payloads), len(test.want))
			}
			for i, want := range test.want {
				b := payloads[i]
				if len(b) != test.lens[i] {
					t.Errorf("message %d: %d bytes, want %d", i, len(b), test.lens[i])
				}
				got, err := parseAny(b)
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("message %d:\ngot  %+v\nwant %+v", i, got, want)
				}
				enc, err := encodeAny(want)
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
				if !bytes.Equal(enc, b) {
					t.Errorf("message %d encoded:\ngot  %x\nwant %x", i, enc, b)
				}
			}
			for _, p := range payloads[len(test.want):] {
				if string(p) != "hello smc-lo 0" {
					t.Errorf("more payload: %q", p)
				}
			}
		})
	}
}

// TestGoldenHandshake lets both ends decide as the kernel did in the captures.
func TestGoldenHandshake(t *testing.T) {
	local := &Local{
		GID: goldenGID, CHID: CHIDLoopback, Active: true,
		UEIDs: []EID{goldenEID}, Release: Release, Features: FeatureEmulatedISM,
	}
	ms := readPcap(t, "smcd1.pcap")
	p, _ := ParseProposal(ms[0])
	a, _ := ParseAcceptConfirm(ms[1])
	c, _ := ParseAcceptConfirm(ms[2])
	want := Agreement{goldenEID, 1, FeatureEmulatedISM}
	if got, err := AnswerProposal(&p, local); err != nil || got != want {
		t.Errorf("server: %+v, %v", got, err)
	}
	if got, err := CheckAccept(&p, &a); err != nil || got != want {
		t.Errorf("client: %+v, %v", got, err)
	}
	if got, err := CheckConfirm(&a, &c); err != nil || got != FeatureEmulatedISM {
		t.Errorf("confirm: %x, %v", got, err)
	}
	p, _ = ParseProposal(readPcap(t, "noeid.pcap")[0])
	if _, err := AnswerProposal(&p, local); err != DeclNoUEID {
		t.Errorf("without EID: %v", err)
	}
}

// The kernel of the captures sent a version 4 UUID with each half reversed.
func TestGoldenGID(t *testing.T) {
	if got, want := goldenGID.String(), "c34bbf62-5008-fce5-b752-1a86b15062ae"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	gid, ext := goldenGID.Halves()
	if gid != 0xc34bbf625008fce5 || ext != 0xb7521a86b15062ae {
		t.Errorf("halves %x %x", gid, ext)
	}
}
