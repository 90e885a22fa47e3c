// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// A confirmation is a hostile client's Confirm before it is sent: the message that would be right, and what is done to it.
type confirmation struct {
	accept smc.AcceptConfirm
	msg    smc.AcceptConfirm
	patch  func([]byte) []byte // of the encoded message
}

// A confirmRow changes a Confirm; want is ends, a Decline, or fine: the connection is made.
type confirmRow struct {
	name   string
	change func(*confirmation)
	want   reaction
}

var fine = reaction{answer: smc.MsgConfirm}

// confirmRows are those for a first contact.
func confirmRows(s *scene) []confirmRow {
	at := func(off int, with ...byte) func(*confirmation) {
		return func(c *confirmation) { c.patch = func(b []byte) []byte { return patched(b, off, with...) } }
	}
	token := func(t uint64) func(*confirmation) { return func(c *confirmation) { c.msg.Token = t } }
	page := func(t uint64) func(*confirmation) { return func(c *confirmation) { c.msg.FCE.SetPage(t) } }
	thirdDMB, thirdsPage := s.honest.rawRegister(s.d, 64<<10), s.honest.rawRegister(s.d, 4096)
	s.thirds = append(s.thirds, thirdDMB, thirdsPage)
	third, thirdPage := thirdDMB.token, thirdsPage.token
	sizeless := rand.Uint64() | 1
	s.a.MustOpen(s.d.Path("dmbs", tokenName(sizeless)), register)
	rows := []confirmRow{
		{"right", func(*confirmation) {}, fine},
		{"type 0", at(4, 0), ends},
		{"a Proposal", at(4, 1), ends},
		{"an Accept", at(4, 2), ends},
		{"type 77", at(4, 77), ends},
		{"version 0", at(7, 0x09), ends},
		{"version 1", at(7, 0x19), ends},
		{"version 3", at(7, 0x39), ends},
		{"path R", at(7, 0x28), ends},
		{"path none", at(7, 0x2a), ends},
		{"no first contact", at(7, 0x21), ends},
		{"no first contact, without the extension", func(c *confirmation) { c.msg.FirstContact, c.msg.FCE = false, nil }, ends},
		{"length 0", at(5, 0, 0), ends},
		{"length 77", at(5, 0, 77), ends},
		{"length 78", at(5, 0, 78), ends},
		{"one less", at(5, 0, 129), ends},
		{"one more", at(5, 0, 131), ends},
		{"length 65535", at(5, 0xff, 0xff), ends},
		{"eyecatcher", at(0, 0), ends},
		{"trailer", at(126, 0), ends},
		{"another GID", func(c *confirmation) { c.msg.GID[0] ^= 1 }, ends},
		{"another second half", func(c *confirmation) { c.msg.GID[15] ^= 1 }, ends},
		{"another CHID", func(c *confirmation) { c.msg.CHID = 0xff00 }, ends},
		{"another EID", func(c *confirmation) { c.msg.EID = otherEIDs(1)[0] }, ends},
		{"dmbe_idx", func(c *confirmation) { c.msg.DMBEIndex = 1 }, ends},
		{"low bits of dmbe_size", at(25, 0x2f), fine},
		{"release 0", func(c *confirmation) { c.msg.FCE.Release = 0 }, declines(smc.DeclReleaseErr)},
		{"release 2", func(c *confirmation) { c.msg.FCE.Release = 2 }, declines(smc.DeclReleaseErr)},
		{"host name of no ASCII", at(78, 0xff, 0, '\n', 27, '[', '2', 'J', 0xc3), fine},
		{"link id 0", func(c *confirmation) { c.msg.LinkID = 0 }, fine},
		{"link id of the victim", func(c *confirmation) { c.msg.LinkID = c.accept.LinkID }, fine},
		{"procs id of another in the extension", func(c *confirmation) { c.msg.FCE.VendorExpOptions = 1 }, fine},
		{"token 0", token(0), ends},
		{"token that nobody has", token(rand.Uint64()), ends},
		{"token of the victim's own DMB", func(c *confirmation) { c.msg.Token = c.accept.Token }, ends},
		{"token of the victim's page", func(c *confirmation) { c.msg.Token = c.accept.FCE.Page() }, ends},
		{"token of a connection of the victim's", token(uint64(s.atVictim.Info().Token)), ends},
		{"token of a connection of the honest peer's", token(uint64(s.atHonest.Info().Token)), ends},
		{"token of a third process's DMB", token(third), ends},
		{"token of a DMB without a size", token(sizeless), ends},
		{"bit 0", func(c *confirmation) { c.msg.SetBit(0, false) }, fine},
		{"bit 32255", func(c *confirmation) { c.msg.SetBit(32255, false) }, fine},
		{"bit 32256", func(c *confirmation) { c.msg.SetBit(32256, true) }, fine},
		{"bit 32767", func(c *confirmation) { c.msg.SetBit(32767, true) }, fine},
		{"page that nobody has", page(rand.Uint64()), ends},
		{"page of a third process", page(thirdPage), ends},
		{"page of the victim", func(c *confirmation) { c.msg.FCE.SetPage(c.accept.FCE.Page()) }, ends},
		{"DMB of the victim as the page", func(c *confirmation) { c.msg.FCE.SetPage(c.accept.Token) }, ends},
		{"DMB as the page too", func(c *confirmation) { c.msg.FCE.SetPage(c.msg.Token) }, ends},
		{"DMB of 64 KiB as the page", page(s.a.rawRegister(s.d, 64<<10).token), ends},
		{"page as the DMB", token(s.a.rawRegister(s.d, 4096).token), ends},
		{"out of sync", func(c *confirmation) { c.patch = func([]byte) []byte { return aDecline(smc.V2, true) } }, reaction{smc.MsgDecline, smc.DeclIPsec, true}},
	}
	for n := range byte(16) { // its DMB has 64 KiB: n is 2
		want := ends
		if n == 2 {
			want = fine
		}
		rows = append(rows, confirmRow{fmt.Sprintf("dmbe_size %d", n), func(c *confirmation) { c.msg.DMBESize = n }, want})
	}
	return rows
}

// confirm runs one row as the process that says it has this procs id (0: that says none), with own as its DMB, and returns
// what the victim has got: nil if the connection ended.
func (s *scene) confirm(row confirmRow, id uint32, own rawDMB, want *handshakes) (*assault, *peerConn) {
	s.t.Helper()
	p := s.a.Proposal()
	if p.SetProcess(id); id == 0 {
		p.VendorOUI = [3]byte{}
	}
	c := s.a.Attack(s.l)
	conf := confirmation{accept: c.accepted(p)}
	conf.msg = s.a.Answer(smc.MsgConfirm, own)
	if conf.msg.FirstContact = conf.accept.FirstContact; !conf.msg.FirstContact {
		conf.msg.FCE = nil
	}
	row.change(&conf)
	b := encoded(&conf.msg)
	if conf.patch != nil {
		b = conf.patch(b)
	}
	c.say(b)
	switch {
	case row.want == ends:
		c.CloseWrite()
		r, _ := c.judged()
		if r == fine {
			s.t.Errorf("%s: the victim takes it", row.name)
			wantError(s.t, "Close", s.accept().Close(), nil)
			return c, nil
		}
		if r != ends {
			s.t.Errorf("%s: the victim answers %v", row.name, r)
		}
		want.ServerErrors++
		return c, nil
	case row.want == fine:
		return c, s.accept()
	}
	reason, diagnosis := row.want.code, smc.DeclineCode(0)
	if row.want.outOfSync { // the attacker's own Decline
		reason, diagnosis = smc.DeclPeerDecl, row.want.code
	} else if r, _ := c.judged(); r != row.want {
		s.t.Errorf("%s: the victim answers %v, want %v", row.name, r, row.want)
	}
	s.isTCP(row.name, s.accept(), reason, diagnosis)
	want.ServerFallback[reason.String()]++
	return c, nil
}

// talk moves bytes over a connection between the attacker, by hand, and the victim, to show that there is one.
func (s *scene) talk(what string, own rawDMB, toVictim rawDMB, v *peerConn) (extra int64) {
	s.t.Helper()
	wantError(s.t, "SetDeadline", v.SetDeadline(patience), nil)
	s.a.put(toVictim, []byte("to the victim"), smc.CDCLen)
	s.a.word(toVictim, smc.OffProducer, smc.ProducerWord(smc.Cursor{Count: 13}))
	got, err := v.ReadFull(13)
	wantText(s.t, what+": the victim got", got, err, "to the victim")
	n, err := v.Write([]byte("from the victim"))
	wantError(s.t, what+": the victim writes", err, nil)
	got, err = s.a.Load(own.mapping, n, smc.CDCLen)
	wantText(s.t, what+": the attacker got", got, err, "from the victim")
	return int64(n)
}

// TestHostileConfirms: a client's second message with every field wrong in its turn, as a first contact and in a link group
// that there is, as itself, as nobody and as the honest peer.
func TestHostileConfirms(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first contact %v", first), func(t *testing.T) {
			scenes(t, func(t *testing.T, s *scene) { testHostileConfirms(t, s, first) })
		})
	}
}

func testHostileConfirms(t *testing.T, s *scene, first bool) {
	want := handshakes{ServerFallback: map[string]int{}}
	rows := confirmRows(s)
	var extra int64
	var goesOn *peerConn
	if !first {
		rows = withoutExtension(rows)
		own := s.a.rawRegister(s.d, 64<<10) // the group lives as long as this
		_, v := s.confirm(rows[0], s.a.id, own, &want)
		goesOn = v
		extra += s.talk("first", own, s.a.rawAttach(s.d, uint64(v.Info().Token), v.Info().ReadBuffer+smc.CDCLen), v)
		if have := v.Info().LinkGroup; have == s.atVictim.Info().LinkGroup {
			t.Errorf("the attacker is in the honest peer's link group %x", have)
		}
	}
	for _, row := range rows {
		own := s.a.rawRegister(s.d, 64<<10)
		id := s.a.id
		if first && row.want == fine {
			id = 0 // there would be a link group: nobody has none
		}
		c, v := s.confirm(row, id, own, &want)
		if v != nil {
			victims := s.a.rawAttach(s.d, uint64(v.Info().Token), v.Info().ReadBuffer+smc.CDCLen)
			extra += s.talk(row.name, own, victims, v)
			if row.name == rows[0].name {
				s.again(row.name, own, &want)
			}
			c.Close()
			s.isOver(row.name, v)
			s.a.drop(victims)
		}
		c.Close()
		s.a.drop(own)
	}
	s.well("after hostile Confirms")
	s.a.Kill()
	if goesOn != nil {
		s.isOver("the attacker's first", goesOn)
	}
	s.finish(extra, want)
}

// withoutExtension leaves out the rows that need the first-contact extension, or are right without one.
func withoutExtension(rows []confirmRow) (left []confirmRow) {
	for _, row := range rows {
		c := confirmation{accept: smc.AcceptConfirm{}, patch: nil}
		if func() (panics bool) {
			defer func() { panics = recover() != nil }()
			row.change(&c)
			return false
		}() || c.patch != nil || row.name == "no first contact, without the extension" {
			continue
		}
		left = append(left, row)
	}
	return left
}

// again offers the DMB of a connection that lives for a second one.
func (s *scene) again(what string, own rawDMB, want *handshakes) {
	s.t.Helper()
	c, _ := s.confirm(confirmRow{what + ", the same DMB again", func(*confirmation) {}, ends}, s.a.id, own, want)
	c.Close()
}

// TestHostileClaims: a client says that it is the honest peer, or the victim. It gets nothing of theirs, and they lose
// nothing.
func TestHostileClaims(t *testing.T) {
	s := newScene(t)
	want := handshakes{ServerFallback: map[string]int{}}
	var honest, victim uint32
	fmt.Sscan(s.honest.Self(s.d), &honest)
	fmt.Sscan(s.victim.Self(s.d), &victim)
	for _, row := range []struct {
		name string
		id   uint32
		confirmRow
	}{
		{"the honest peer", honest, confirmRow{"right", func(*confirmation) {}, ends}},
		{"the honest peer", honest, confirmRow{"its DMB", func(c *confirmation) { c.msg.Token = uint64(s.atHonest.Info().Token) }, ends}},
		{"the victim", victim, confirmRow{"right", func(*confirmation) {}, ends}},
		{"the victim", victim, confirmRow{"its DMB", func(c *confirmation) { c.msg.Token = c.accept.Token }, ends}},
		{"the victim", victim, confirmRow{"its DMB and page", func(c *confirmation) {
			c.msg.Token = c.accept.Token
			if c.accept.FCE != nil {
				c.msg.FCE.SetPage(c.accept.FCE.Page())
			}
		}, ends}},
		{"nobody", 0, confirmRow{"the victim's DMB", func(c *confirmation) { c.msg.Token = c.accept.Token }, ends}},
		{"a process that is not there", 0xfffffff0, confirmRow{"right", func(*confirmation) {}, ends}},
	} {
		own := s.a.rawRegister(s.d, 64<<10)
		row.confirmRow.name = row.name + ", " + row.confirmRow.name
		c, _ := s.confirm(row.confirmRow, row.id, own, &want)
		s.well("after claims to be " + row.name)
		c.Close()
		s.a.drop(own)
	}

	// The victim's connections with itself are as they should be, too.
	a, b := connect(t, s.victim, overSMC, s.victim, overSMC)
	wantSMCD(s.d, a, b)
	const n = 100 << 10
	exchange(a, b, n)
	s.moved.Add(2 * n)
	s.end(a, b)
	s.finish(0, want)
}

// TestHostileIdentityFlood: hundreds of clients that say they are the honest peer and stop at their Accept: its own next
// connections do not wait and stay in their link group.
func TestHostileIdentityFlood(t *testing.T) {
	s := newScene(t)
	var honest uint32
	fmt.Sscan(s.honest.Self(s.d), &honest)
	p := s.a.Proposal()
	p.SetProcess(honest)
	var all []*assault
	for range 200 {
		c := s.a.Attack(s.l)
		c.accepted(p)
		all = append(all, c)
	}
	s.well("beside 200 who say they are the honest peer")
	want := handshakes{ServerErrors: len(all)}
	for _, c := range all {
		wantError(t, "Close", c.Close(), nil)
	}
	s.wantErrors(&want)
	s.well("after 200 who said they are the honest peer")
	s.finish(0, want)
}
