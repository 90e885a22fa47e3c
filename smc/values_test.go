// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseEID(t *testing.T) {
	long := strings.Repeat("A", 32)
	for _, test := range []struct {
		in  string
		err error
	}{
		{"A", nil}, {"0", nil}, {"SMCV2-ANCHOR-UEID.01", nil}, {long, nil}, {"A..B", nil}, {"A-", nil},
		{"A   ", nil}, {long + "  ", nil},
		{"", ErrEIDEmpty}, {"   ", ErrEIDEmpty},
		{long + "A", ErrEIDTooLong},
		{".A", ErrEIDFirst}, {"-A", ErrEIDFirst}, {" A", ErrEIDFirst}, {"a", ErrEIDFirst},
		{"Aa", ErrEIDChar}, {"A B", ErrEIDChar}, {"A_B", ErrEIDChar}, {"A\x00", ErrEIDChar}, {"AÄ", ErrEIDChar}, {"A\t", ErrEIDChar},
	} {
		e, err := ParseEID(test.in)
		if !errors.Is(err, test.err) {
			t.Errorf("%q: %v, want %v", test.in, err, test.err)
		}
		if err != nil {
			continue
		}
		text := strings.TrimRight(test.in, " ")
		if e.String() != text || string(e[:]) != text+strings.Repeat(" ", 32-len(text)) {
			t.Errorf("%q: padded to %q, read as %q", test.in, e[:], e)
		}
	}
}

func TestChooseEID(t *testing.T) {
	a, b, c := mustEID("A"), mustEID("B"), mustEID("C")
	for _, test := range []struct {
		client, server []EID
		want           EID
		ok             bool
	}{
		{nil, nil, EID{}, false},
		{nil, []EID{a}, EID{}, false},
		{[]EID{a}, nil, EID{}, false},
		{[]EID{a, b}, []EID{c}, EID{}, false},
		{[]EID{a, b, c}, []EID{c, b}, b, true}, // the client's order counts
	} {
		if got, ok := ChooseEID(test.client, test.server); got != test.want || ok != test.ok {
			t.Errorf("client %v, server %v: %v, %t", test.client, test.server, got, ok)
		}
	}
}

func TestGIDText(t *testing.T) {
	const text = "e5fc0850-62bf-4bc3-ae62-50b1861a52b7"
	g, err := ParseGID(strings.ToUpper(text))
	if err != nil || g.String() != text {
		t.Fatalf("%v, %v", g, err)
	}
	if gid, ext := g.Halves(); gid != 0xe5fc085062bf4bc3 || ext != 0xae6250b1861a52b7 || GIDFromHalves(gid, ext) != g {
		t.Errorf("halves %x %x", gid, ext)
	}
	for _, bad := range []string{"", text[1:], text + "0", strings.ReplaceAll(text, "-", "_"),
		"g5fc0850-62bf-4bc3-ae62-50b1861a52b7", "e5fc085062bf-4bc3-ae62--50b1861a52b7", "-5fc0850-62bf-4bc3-ae62-50b1861a52b7"} {
		if g, err := ParseGID(bad); err == nil {
			t.Errorf("%q: %v", bad, g)
		}
	}
}

func TestEmulatedCHID(t *testing.T) {
	for chid, want := range map[uint16]bool{0: false, 0xFEFF: false, 0xFF00: true, 0xFFFE: true, CHIDLoopback: true} {
		if EmulatedCHID(chid) != want {
			t.Errorf("%04x: %t", chid, !want)
		}
	}
}

func TestBufSize(t *testing.T) {
	const k = 1 << 10
	for _, test := range []struct {
		size int
		n    uint8
	}{
		{-1, 0}, {0, 0}, {1, 0}, {16 * k, 0}, {16*k + 1, 1}, {32 * k, 1}, {32*k + 1, 2}, {64 * k, 2},
		{64*k + 1, 3}, {128 * k, 3}, {256 * k, 4}, {512 * k, 5}, {512*k + 1, 6}, {MaxBufSize, 6}, {MaxBufSize + 1, 6}, {1 << 30, 6},
	} {
		if n := CompressBufSize(test.size); n != test.n {
			t.Errorf("%d bytes: %d, want %d", test.size, n, test.n)
		}
	}
	for n := range uint8(maxCompressedSize + 1) {
		if got := CompressBufSize(UncompressBufSize(n)); got != n {
			t.Errorf("%d comes back as %d", n, got)
		}
	}
	if UncompressBufSize(0) != MinBufSize || UncompressBufSize(6) != MaxBufSize || UncompressBufSize(15) != 512<<20 {
		t.Error("UncompressBufSize")
	}
}

func TestDeclineCodes(t *testing.T) {
	if len(declineNames) != 36 {
		t.Errorf("%d codes", len(declineNames))
	}
	for _, test := range []struct {
		code        DeclineCode
		name, stats string
		known       bool
	}{
		{0x03010000, "PEERNOSMC", "PEER_NO_SMC", true},
		{0x01010000, "MEM", "MEMORY", true},
		{0x03000000, "CNFERR", "CNF_ERR", true},
		{0x030d0000, "MAX_DMB", "MAX_DMB", true},
		{0x03030008, "NOUEID", "[unknown]", false},
		{0x09990000, "INTERR", "[unknown]", false},
		{0x12345678, "0x12345678", "[unknown]", false},
	} {
		if got := test.code.String(); got != test.name {
			t.Errorf("%08x: %s, want %s", uint32(test.code), got, test.name)
		}
		if got, known := test.code.StatsName(); got != test.stats || known != test.known {
			t.Errorf("%08x: %s, %t", uint32(test.code), got, known)
		}
	}
	known := 0
	for c := range declineNames {
		if _, ok := c.StatsName(); ok {
			known++
		}
	}
	if known != 26 {
		t.Errorf("smcd stats knows %d codes, want 26", known)
	}
	err := fmt.Errorf("handshake: %w", DeclNoUEID)
	if got, want := err.Error(), "handshake: SMC declined: NOUEID (0x03030008)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if code := DeclineCode(0); !errors.As(err, &code) || code != DeclNoUEID {
		t.Errorf("%v", code)
	}
}

func TestMsgTypeNames(t *testing.T) {
	for typ, want := range map[MsgType]string{
		MsgProposal: "Proposal", MsgAccept: "Accept", MsgConfirm: "Confirm", MsgDecline: "Decline", 9: "CLC type 9",
	} {
		if typ.String() != want {
			t.Errorf("%v, want %s", typ, want)
		}
	}
}
