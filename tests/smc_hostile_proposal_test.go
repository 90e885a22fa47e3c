// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// aDecline is a Decline with a code that nobody sends by chance.
func aDecline(version uint8, outOfSync bool) []byte {
	d := smc.NewDecline(version, smc.DeclIPsec)
	d.OutOfSync = outOfSync
	return d.AppendTo(nil)
}

// otherEIDs are n EIDs that nobody has.
func otherEIDs(n int) (list []smc.EID) {
	for i := range n {
		e, err := smc.ParseEID(fmt.Sprintf("NOBODY-%d", i))
		if err != nil {
			panic(err)
		}
		list = append(list, e)
	}
	return list
}

// TestHostileProposals: a client's first message with every field wrong in its turn. The victim ends that connection, or
// declines it, and has it as TCP.
func TestHostileProposals(t *testing.T) {
	s := newScene(t)
	good := s.a.Proposal()
	changed := func(change func(*smc.Proposal)) []byte {
		p := s.a.Proposal()
		change(&p)
		return encoded(&p)
	}
	p := encoded(&good)
	last := len(p) - smc.TrailerLen
	gid, ext := s.a.local.GID.Halves()
	mine := []smc.GIDCHID{{GID: gid, CHID: smc.CHIDLoopback}, {GID: ext, CHID: smc.CHIDLoopback}}
	foreign := []smc.GIDCHID{{GID: 1, CHID: 0xff00}, {GID: 2, CHID: 0xff00}, {GID: gid, CHID: 0xff01}, {GID: ext, CHID: 0xff01}, {GID: gid + 1, CHID: smc.CHIDLoopback}, {GID: ext, CHID: smc.CHIDLoopback}}
	accepts := reaction{answer: smc.MsgAccept}
	rows := []struct {
		name string
		b    []byte
		want reaction
	}{
		{"right", p, accepts},
		{"type 0", patched(p, 4, 0), ends},
		{"an Accept", patched(p, 4, 2), ends},
		{"a Confirm", patched(p, 4, 3), ends},
		{"type 5", patched(p, 4, 5), ends},
		{"type 255", patched(p, 4, 255), ends},
		{"a real Confirm", encoded(ptr(s.a.Answer(smc.MsgConfirm, rawDMB{token: 1, size: 64 << 10}))), ends},
		{"version 0", patched(p, 7, 0x06), ends},
		{"version 1 without a path", patched(p, 7, 0x16), ends},
		{"version 1 in the form of 2", patched(p, 7, 0x15), ends},
		{"version 3", patched(p, 7, 0x36), accepts},
		{"version 15", patched(p, 7, 0xf6), accepts},
		{"paths R and none", patched(p, 7, 0x22), ends},
		{"no path", patched(p, 7, 0x2a), ends},
		{"length 0", patched(p, 5, 0, 0), ends},
		{"length 7", patched(p, 5, 0, 7), ends},
		{"length 8", patched(p, 5, 0, 8), ends},
		{"length 11", patched(p, 5, 0, 11), ends},
		{"length 12", patched(p, 5, 0, 12), ends},
		{"one less", patched(p, 5, 0, p[6]-1), ends},
		{"one more", patched(p, 5, 0, p[6]+1), ends},
		{"length 652", patched(p, 5, 0x02, 0x8c), ends},
		{"length 653", patched(p, 5, 0x02, 0x8d), ends},
		{"length 65535", patched(p, 5, 0xff, 0xff), ends},
		{"SMCD", patched(patched(p, 3, 0xc4), last+3, 0xc4), accepts},
		{"eyecatcher", patched(p, 0, 'G', 'E', 'T', ' '), ends},
		{"first byte", patched(p, 0, 0), ends},
		{"trailer", patched(p, last, 0), ends},
		{"HTTP", bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 20), ends},
		{"TLS", append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 600)...), ends},
		{"iparea_offset 41", patched(p, 38, 0, 41), ends},
		{"iparea_offset 65535", patched(p, 38, 0xff, 0xff), ends},
		{"v2_ext_offset 0", patched(p, 50, 0, 0), ends},
		{"v2_ext_offset 1", patched(p, 50, 0, 1), ends},
		{"v2_ext_offset 27", patched(p, 50, 0, 27), ends},
		{"v2_ext_offset 29", patched(p, 50, 0, 29), ends},
		{"v2_ext_offset 172", patched(p, 50, 0, 172), ends},
		{"v2_ext_offset 65535", patched(p, 50, 0xff, 0xff), ends},
		{"no v2 extension", changed(func(p *smc.Proposal) { p.V2 = nil }), declines(smc.DeclNoV2Ext)},
		{"smcd_v2_ext_offset 0", patched(p, 86, 0, 0), declines(smc.DeclNoV2DExt)},
		{"smcd_v2_ext_offset 63", patched(p, 86, 0, 63), declines(smc.DeclNoSMCD2Dev)},
		{"smcd_v2_ext_offset 65", patched(p, 86, 0, 65), ends},
		{"smcd_v2_ext_offset 65535", patched(p, 86, 0xff, 0xff), declines(smc.DeclNoV2DExt)},
		{"eid_cnt 0 of 1", patched(p, 80, 0), ends},
		{"eid_cnt 8 of 1", patched(p, 80, 8), ends},
		{"eid_cnt 9", patched(p, 80, 9), ends},
		{"eid_cnt 255", patched(p, 80, 255), ends},
		{"ism_gid_cnt 0 of 2", patched(p, 81, 0), ends},
		{"ism_gid_cnt 8 of 2", patched(p, 81, 8), ends},
		{"ism_gid_cnt 255", patched(p, 81, 255), ends},
		{"8 EIDs, ours the last", changed(func(p *smc.Proposal) { p.V2.UEIDs = append(otherEIDs(7), p.V2.UEIDs...) }), accepts},
		{"8 EIDs, ours missing", changed(func(p *smc.Proposal) { p.V2.UEIDs = otherEIDs(8) }), declines(smc.DeclNoSMCDDev)},
		{"no EID", changed(func(p *smc.Proposal) { p.V2.UEIDs = nil }), declines(smc.DeclNoUEID)},
		{"EID of zeros", changed(func(p *smc.Proposal) { p.V2.UEIDs = []smc.EID{{}} }), declines(smc.DeclNoSMCDDev)},
		{"8 entries, ours the last", changed(func(p *smc.Proposal) { p.V2.SMCD.GIDs = append(foreign, mine...) }), accepts},
		{"foreign GIDs", changed(func(p *smc.Proposal) { p.V2.SMCD.GIDs = foreign }), declines(smc.DeclNoSMCD2Dev)},
		{"half a GID", changed(func(p *smc.Proposal) { p.V2.SMCD.GIDs = mine[:1] }), declines(smc.DeclNoSMCD2Dev)},
		{"halves exchanged", changed(func(p *smc.Proposal) { p.V2.SMCD.GIDs = []smc.GIDCHID{mine[1], mine[0]} }), declines(smc.DeclNoSMCD2Dev)},
		{"no GID", changed(func(p *smc.Proposal) { p.V2.SMCD.GIDs = nil }), declines(smc.DeclNoSMCD2Dev)},
		{"release 0", changed(func(p *smc.Proposal) { p.V2.Release = 0 }), accepts},
		{"release 15", changed(func(p *smc.Proposal) { p.V2.Release = 15 }), accepts},
		{"two Proposals at once", append(bytes.Clone(p), p...), accepts},
		{"and much more", append(bytes.Clone(p), bytes.Repeat([]byte{0xe2}, 10000)...), accepts},
		{"a Decline", aDecline(smc.V2, false), reaction{}},
		{"a Decline of version 1", aDecline(smc.V1, false), reaction{}},
		{"a Decline, out of sync", aDecline(smc.V2, true), reaction{}},
		{"a Decline that is cut", patched(aDecline(smc.V2, false), 5, 0, 40), ends},
	}
	want := handshakes{ServerFallback: map[string]int{}}
	for _, row := range rows {
		c := s.a.Attack(s.l)
		c.say(row.b)
		if d, err := smc.ParseDecline(row.b); err == nil {
			s.isTCP(row.name, s.accept(), smc.DeclPeerDecl, d.Diagnosis)
			want.ServerFallback[smc.DeclPeerDecl.String()]++
			wantError(t, row.name, c.Close(), nil)
			continue
		}
		c.CloseWrite() // it may be reset already
		v, _ := c.judged()
		if v != row.want {
			t.Errorf("%s: the victim's answer is %v, want %v", row.name, v, row.want)
		}
		if v.answer == smc.MsgDecline {
			s.isTCP(row.name, s.accept(), v.code, 0)
			want.ServerFallback[v.code.String()]++
		} else {
			want.ServerErrors++
		}
		c.Close()
	}
	s.finish(0, want)
}

func ptr[T any](v T) *T { return &v }

// TestHostileCuts: every message that a server reads, cut after every byte, by a FIN and by a reset.
func TestHostileCuts(t *testing.T) {
	s := newScene(t)
	p := s.a.Proposal()
	own := s.a.rawRegister(s.d, 64<<10)
	confirm := s.a.Answer(smc.MsgConfirm, own)
	d := aDecline(smc.V2, true)
	var want handshakes
	step := 1
	if testing.Short() {
		step = 7
	}
	cut := func(before bool, b []byte) {
		for k := 0; k < len(b); k += step {
			c := s.a.Attack(s.l)
			if before {
				c.accepted(p)
			}
			c.say(b[:k])
			if k%2 == 0 {
				c.SetLinger(0)
			}
			wantError(t, "Close", c.Close(), nil)
			want.ServerErrors++
		}
	}
	cut(false, encoded(&p))
	cut(false, d)
	s.well("after cut Proposals")
	cut(true, encoded(&confirm))
	cut(true, d)
	s.wantErrors(&want)
	s.finish(0, want)
}

// wantErrors waits until as many handshakes have failed: the last ones can go on still.
func (s *scene) wantErrors(want *handshakes) {
	s.t.Helper()
	waitFor(s.t, "the victim's handshakes to fail", func() error {
		if have := s.d.handshakes().since(s.counted); have.ServerErrors != want.ServerErrors || have.ClientErrors != want.ClientErrors {
			return fmt.Errorf("%+v, want %+v", have, *want)
		}
		return nil
	})
}

// TestHostileOutOfSync: a client that nobody has confirmed says out of sync, at each step and in the name of the honest peer.
// Its connection is TCP; the honest peer's connections and link group go on, busy and idle.
func TestHostileOutOfSync(t *testing.T) {
	s := newScene(t)
	var honest uint32
	fmt.Sscan(s.honest.Self(s.d), &honest)
	want := handshakes{ServerFallback: map[string]int{}}
	attack := func(first bool) {
		t.Helper()
		p := s.a.Proposal()
		p.SetProcess(honest)
		c := s.a.Attack(s.l)
		if first {
			c.say(aDecline(smc.V2, true))
		} else if m := c.accepted(p); m.FirstContact {
			t.Error("the group of the honest peer is not continued in its name") // then this test tests nothing
		}
		c.say(aDecline(smc.V2, true))
		s.isTCP("out of sync", s.accept(), smc.DeclPeerDecl, smc.DeclIPsec)
		want.ServerFallback[smc.DeclPeerDecl.String()]++
		wantError(t, "Close", c.Close(), nil)
	}
	for _, first := range []bool{true, false} {
		attack(first)
		s.well("after out of sync")
	}

	// A group without connections: other processes, whose connection ends before.
	victim, idle := startPeer(t, s.d.Point), startPeer(t, s.d.Point)
	l := victim.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, idle, overSMC, l)
	wantSMCD(s.d, a, b)
	group := b.Info().LinkGroup
	s.end(a, b)
	fmt.Sscan(idle.Self(s.d), &honest)
	s2 := &scene{t: t, d: s.d, victim: victim, honest: idle, a: s.a, l: l, accepted: acceptAll(l)}
	p := s.a.Proposal()
	p.SetProcess(honest)
	c := s.a.Attack(l)
	c.accepted(p)
	c.say(aDecline(smc.V2, true))
	s2.isTCP("out of sync", s2.accept(), smc.DeclPeerDecl, smc.DeclIPsec)
	want.ServerFallback[smc.DeclPeerDecl.String()]++
	a = idle.MustDial(overSMC, "tcp", l.Address)
	b = s2.accept()
	wantError(t, "Handshake", a.Handshake(0), nil)
	wantSMCD(s.d, a, b)
	if have := b.Info().LinkGroup; have != group {
		t.Errorf("an unconfirmed peer has ended an idle link group: it is %x, it was %x", have, group)
	}
	victim.Kill()
	_, err := a.ReadAll()
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	idle.Kill()
	s.finish(0, want)
}
