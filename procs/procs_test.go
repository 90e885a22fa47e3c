// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

func mustEID(s string) smc.EID {
	e, err := smc.ParseEID(s)
	if err != nil {
		panic(err)
	}
	return e
}

func conns() map[string]Conn {
	return map[string]Conn{
		"SMC-D": {
			Role: Client, Mode: SMCD, State: smc.Active, ShutWrite: true, Token: 1 << 63, PeerToken: 2, LinkID: 0x100, Inode: 1 << 40,
			Local: netip.MustParseAddrPort("127.0.0.1:48630"), Peer: netip.MustParseAddrPort("127.0.0.1:7777"),
		},
		"TCP, IPv6": {
			Role: Server, Mode: TCP, State: smc.AppCloseWait1, ShutRead: true, Reason: smc.DeclPeerDecl, PeerDiagnosis: smc.DeclNoUEID,
			Local: netip.MustParseAddrPort("[2001:db8::1]:1"), Peer: netip.MustParseAddrPort("[::ffff:10.0.0.1]:65535"),
		},
		"TCP, to be found": {
			Role: Client, Mode: TCP, State: smc.Active, Reason: smc.DeclPeerNoSMC, Descriptor: 1 << 20,
			Local: netip.MustParseAddrPort("0.0.0.0:0"), Peer: netip.MustParseAddrPort("10.0.0.1:80"),
		},
		"listener": {Listener: true, State: smc.Listen, Mode: SMCD, Local: netip.MustParseAddrPort("[::]:80")},
	}
}

func testGroup() Group {
	return Group{Role: Server, Release: 1, OS: 2, ID: 0x100, Peer: 77, Page: 3, PeerPage: 4, EID: mustEID("SMCV2-ANCHOR-UEID.01"), Host: "host"}
}

func TestConnRoundTrip(t *testing.T) {
	for name, c := range conns() {
		var b [SlotLen]byte
		b[0], b[SlotLen-1] = 7, 7
		c.Put(&b)
		kind, got, g, err := ParseSlot(b[:])
		if err != nil || g != nil || !reflect.DeepEqual(got, &c) || (kind == Listener) != c.Listener {
			t.Errorf("%s: kind %d, %+v, %v", name, kind, got, err)
		}
		if b[0] != 7 || b[SlotLen-1] != 0 {
			t.Errorf("%s: the sequence word was touched, or the rest not", name)
		}
	}
}

// What cannot be told in the slot becomes the nearest that can.
func TestAddresses(t *testing.T) {
	for _, test := range []struct{ local, peer, wantLocal, wantPeer string }{
		{"10.0.0.1:1", "10.0.0.2:2", "10.0.0.1:1", "10.0.0.2:2"},
		{"10.0.0.1:1", "[::1]:2", "[::ffff:10.0.0.1]:1", "[::1]:2"},
		{"[fe80::1%eth0]:1", "[fe80::2%eth0]:2", "[fe80::1]:1", "[fe80::2]:2"},
		{"", "10.0.0.2:2", "0.0.0.0:0", "10.0.0.2:2"},
		{"", "", "0.0.0.0:0", "0.0.0.0:0"},
	} {
		var c Conn
		var b [SlotLen]byte
		c.State = smc.Init
		c.Local, _ = netip.ParseAddrPort(test.local)
		c.Peer, _ = netip.ParseAddrPort(test.peer)
		c.Put(&b)
		_, got, _, err := ParseSlot(b[:])
		if err != nil || got.Local.String() != test.wantLocal || got.Peer.String() != test.wantPeer {
			t.Errorf("%q %q: %v %v, %v", test.local, test.peer, got.Local, got.Peer, err)
		}
	}
}

func TestGroupRoundTrip(t *testing.T) {
	for _, test := range []struct{ host, want string }{
		{"host", "host"}, {"", ""}, {strings.Repeat("h", 40), strings.Repeat("h", 32)}, {"a b\n", "a?b?"}, {"ä", "??"},
	} {
		g := testGroup()
		g.Host = test.host
		var b [SlotLen]byte
		g.Put(&b)
		kind, c, got, err := ParseSlot(b[:])
		g.Host = test.want
		if err != nil || kind != LinkGroup || c != nil || !reflect.DeepEqual(got, &g) {
			t.Errorf("%q: kind %d, %+v, %v", test.host, kind, got, err)
		}
	}
}

func TestHostileSlots(t *testing.T) {
	conn, group := conns()["SMC-D"], testGroup()
	var c, g [SlotLen]byte
	conn.Put(&c)
	group.Put(&g)
	for name, test := range map[string]struct {
		of  [SlotLen]byte
		off int
		v   byte
	}{
		"kind": {c, offKind, 4}, "role": {c, offRole, 3}, "mode": {c, offMode, 3}, "state 0": {c, offState, 0},
		"state 19": {c, offState, 19}, "state 28": {c, offState, 28}, "a connection in state LISTEN": {c, offState, byte(smc.Listen)},
		"an active listener": {c, offKind, byte(Listener)}, "family 0": {c, offFamily, 0}, "family 10": {c, offFamily, 10},
		"a descriptor of SMC-D": {c, offDescriptor, 4},
		"group's role":          {g, offRole, 3}, "newline in the EID": {g, offEID + 1, '\n'}, "NUL in the EID": {g, offEID + 31, 0},
		"newline in the host": {g, offHost + 1, '\n'}, "blank in the host": {g, offHost + 1, ' '}, "ESC in the host": {g, offHost, 27},
	} {
		test.of[test.off] = test.v
		if kind, c, g, err := ParseSlot(test.of[:]); err == nil || c != nil || g != nil || kind != Free {
			t.Errorf("%s: %d %v %v", name, kind, c, g)
		}
	}
	for n := range 2 * SlotLen {
		if _, _, _, err := ParseSlot(make([]byte, n)); (err == nil) != (n == SlotLen) || n != SlotLen && !errors.Is(err, ErrSlotLen) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestLayout(t *testing.T) {
	if OffCounters+8*Counters != OffHandshakeErrors || CountersEnd > OffSlots || len(smc.DeclineCodes) > MaxFallbacks {
		t.Error("the counters do not fit")
	}
	if len(CounterNames) != Counters || CounterNames[FirstGauge] != "SMC_RX_RMB_USAGE" {
		t.Errorf("%d counters have names", len(CounterNames))
	}
	if OffFallback(Server, 0) != 640 || OffFallback(Client, 63) != CountersEnd-8 || OffHandshakeError(Client) != 584 || OffHandshakeError(Server) != 592 {
		t.Error("a counter is not where the format says")
	}
	for length, want := range map[int64]int{0: 0, 2048: 0, 4096: 16, 1 << 20: 8176} {
		if got := Slots(length); got != want {
			t.Errorf("%d bytes have %d slots, want %d", length, got, want)
		}
	}
}

// What is accepted is the same after another round.
func FuzzSlot(f *testing.F) {
	var b [SlotLen]byte
	for _, c := range conns() {
		c.Put(&b)
		f.Add(bytes.Clone(b[:]))
	}
	g := testGroup()
	g.Put(&b)
	f.Add(bytes.Clone(b[:]))
	f.Fuzz(func(t *testing.T, raw []byte) {
		kind, c, g, err := ParseSlot(raw)
		if err != nil || kind == Free {
			return
		}
		var b [SlotLen]byte
		if c != nil {
			c.Put(&b)
		} else {
			g.Put(&b)
		}
		kind2, c2, g2, err := ParseSlot(b[:])
		if err != nil || kind2 != kind || !reflect.DeepEqual(c, c2) || !reflect.DeepEqual(g, g2) {
			t.Errorf("%d %+v %+v became %d %+v %+v, %v", kind, c, g, kind2, c2, g2, err)
		}
	})
}
