// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// A dialled is a connection of the victim's to an attacker's listener, and the attacker's end of it.
type dialled struct {
	*peerConn // the victim's
	server    *assault
	proposal  smc.Proposal
}

// lure has the victim connect to the attacker, which reads its Proposal.
func (s *scene) lure(l *peerListener) *dialled {
	s.t.Helper()
	v := s.victim.MustDial(overSMC, "tcp", l.Address)
	c := s.a.assault(l.MustAccept())
	b, err := c.hear()
	if err != nil {
		s.t.Fatalf("the victim's Proposal: %v", err)
	}
	p, err := smc.ParseProposal(b)
	if err != nil {
		s.t.Fatalf("the victim's Proposal: %v", err)
	}
	return &dialled{v, c, p}
}

// An acceptRow is an Accept that is wrong in one way. want is ends (the victim's connection fails), a Decline (it is TCP), or
// fine.
type acceptRow struct {
	name   string
	change func(*smc.AcceptConfirm)
	patch  func([]byte) []byte
	want   reaction
}

func acceptRows(s *scene, honest uint32, lent uint64) []acceptRow {
	at := func(off int, with ...byte) func([]byte) []byte {
		return func(b []byte) []byte { return patched(b, off, with...) }
	}
	token := func(t uint64) func(*smc.AcceptConfirm) { return func(m *smc.AcceptConfirm) { m.Token = t } }
	page := func(t uint64) func(*smc.AcceptConfirm) { return func(m *smc.AcceptConfirm) { m.FCE.SetPage(t) } }
	third, thirdPage := s.honest.rawRegister(s.d, 64<<10), s.honest.rawRegister(s.d, 4096)
	s.thirds = append(s.thirds, third, thirdPage)
	sizeless := rand.Uint64() | 1
	s.a.MustOpen(s.d.Path("dmbs", tokenName(sizeless)), register)
	mem, outOfSync := declines(smc.DeclMem), reaction{smc.MsgDecline, smc.DeclSyncErr, true}
	rows := []acceptRow{
		{"right", nil, nil, fine},
		{"type 0", nil, at(4, 0), ends},
		{"a Proposal", nil, at(4, 1), ends},
		{"a Confirm", nil, at(4, 3), ends},
		{"type 255", nil, at(4, 255), ends},
		{"version 0", nil, at(7, 0x09), ends},
		{"version 1 in the form of 2", nil, at(7, 0x19), ends},
		{"version 1", func(m *smc.AcceptConfirm) { m.Version, m.FCE = smc.V1, nil }, nil, declines(smc.DeclModeUnsupp)},
		{"path R", nil, at(7, 0x28), declines(smc.DeclModeUnsupp)},
		{"path none", nil, at(7, 0x2a), ends},
		{"length 0", nil, at(5, 0, 0), ends},
		{"length 78", nil, at(5, 0, 78), ends},
		{"one less", nil, at(5, 0, 129), ends},
		{"one more", nil, at(5, 0, 131), ends},
		{"length 65535", nil, at(5, 0xff, 0xff), ends},
		{"eyecatcher", nil, at(0, 'H'), ends},
		{"trailer", nil, at(126, 0), ends},
		{"HTTP", nil, func([]byte) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }, ends},
		{"another GID", func(m *smc.AcceptConfirm) { m.GID[0] ^= 1 }, nil, ends},
		{"another CHID", func(m *smc.AcceptConfirm) { m.CHID = 0xff00 }, nil, ends},
		{"another EID", func(m *smc.AcceptConfirm) { m.EID = otherEIDs(1)[0] }, nil, ends},
		{"dmbe_idx", func(m *smc.AcceptConfirm) { m.DMBEIndex = 1 }, nil, ends},
		{"release 0", func(m *smc.AcceptConfirm) { m.FCE.Release = 0 }, nil, fine},
		{"release 2", func(m *smc.AcceptConfirm) { m.FCE.Release = 2 }, nil, declines(smc.DeclReleaseErr)},
		{"an unknown link group", func(m *smc.AcceptConfirm) { m.FirstContact, m.FCE, m.LinkID = false, nil, 0x77777700 }, nil, outOfSync},
		{"the honest peer's link group", func(m *smc.AcceptConfirm) { m.FirstContact, m.FCE, m.LinkID = false, nil, s.atHonest.Info().LinkGroup }, nil, outOfSync},
		{"the victim's link group", func(m *smc.AcceptConfirm) { m.FirstContact, m.FCE, m.LinkID = false, nil, s.atVictim.Info().LinkGroup }, nil, outOfSync},
		{"the honest peer's procs id", func(m *smc.AcceptConfirm) { m.FCE.VendorExpOptions = honest }, nil, mem},
		{"no procs id", func(m *smc.AcceptConfirm) { m.FCE.VendorExpOptions = 0 }, nil, fine},
		{"token 0", token(0), nil, mem},
		{"token that nobody has", token(rand.Uint64()), nil, mem},
		{"token of a DMB of the victim's", token(lent), nil, mem},
		{"token of a connection of the victim's", token(uint64(s.atVictim.Info().Token)), nil, mem},
		{"token of a connection of the honest peer's", token(uint64(s.atHonest.Info().Token)), nil, mem},
		{"token of a third process's DMB", token(third.token), nil, mem},
		{"token of a DMB without a size", token(sizeless), nil, mem},
		{"token of a page", token(s.a.rawRegister(s.d, 4096).token), nil, mem},
		{"bit 65535", func(m *smc.AcceptConfirm) { m.SetBit(32767, true) }, nil, fine},
		{"page that nobody has", page(rand.Uint64()), nil, fine}, // without pages then
		{"page of a third process", page(thirdPage.token), nil, fine},
		{"DMB as the page too", func(m *smc.AcceptConfirm) { m.FCE.SetPage(m.Token) }, nil, fine},
		{"DMB of 64 KiB as the page", page(s.a.rawRegister(s.d, 64<<10).token), nil, fine},
		{"a Decline", nil, func([]byte) []byte { return aDecline(smc.V2, false) }, declines(smc.DeclIPsec)},
		{"a Decline of version 1", nil, func([]byte) []byte { return aDecline(smc.V1, false) }, declines(smc.DeclIPsec)},
		{"out of sync", nil, func([]byte) []byte { return aDecline(smc.V2, true) }, declines(smc.DeclIPsec)},
	}
	for n := range uint8(16) {
		want := mem
		if n == 2 {
			want = fine
		}
		rows = append(rows, acceptRow{fmt.Sprintf("dmbe_size %d", n), func(m *smc.AcceptConfirm) { m.DMBESize = n }, nil, want})
	}
	return rows
}

// TestHostileAccepts: a server's answer with every field wrong in its turn.
func TestHostileAccepts(t *testing.T) { scenes(t, testHostileAccepts) }

func testHostileAccepts(t *testing.T, s *scene) {
	l := s.a.Listen(marked, "tcp", "127.0.0.1:0")
	want := handshakes{ClientFallback: map[string]int{}}
	var honest uint32
	fmt.Sscan(s.honest.Self(s.d), &honest)

	// A connection whose DMB the victim has told, and that nobody is attached to.
	first := s.lure(l)
	firstOwn := s.a.rawRegister(s.d, 64<<10)
	accept := s.a.Answer(smc.MsgAccept, firstOwn)
	first.server.say(encoded(&accept))
	b, err := first.server.hear()
	if err != nil {
		t.Fatal(err)
	}
	confirm, err := smc.ParseAcceptConfirm(b)
	if err != nil {
		t.Fatal(err)
	}

	var extra int64
	for i, row := range acceptRows(s, honest, confirm.Token) {
		c := s.lure(l)
		own := s.a.rawRegister(s.d, 64<<10)
		m := s.a.Answer(smc.MsgAccept, own)
		m.LinkID = uint32(i+2) << 8 // a link group each
		if row.change != nil {
			row.change(&m)
		}
		b := encoded(&m)
		if row.patch != nil {
			b = row.patch(b)
		}
		c.server.say(b)
		extra += s.judgeClient(c, row, own, &want)
		c.server.Close()
		c.Close()
		s.a.drop(own)
	}
	first.server.Close()
	s.isOver("the first one", first.peerConn)
	s.finish(extra, want)
}

// judgeClient looks what a client has made of an Accept.
func (s *scene) judgeClient(c *dialled, row acceptRow, own rawDMB, want *handshakes) (extra int64) {
	t := s.t
	t.Helper()
	if row.want == ends {
		c.server.CloseWrite() // what lies about its length ends here
		if err := c.Handshake(patience); !errors.Is(err, syscall.EPROTO) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the victim's handshake: %v (%s)", row.name, err, c.Info())
		}
		want.ClientErrors++
		return 0
	}
	wantError(t, row.name+": the victim's handshake", c.Handshake(patience), nil)
	if row.want == fine {
		b, err := c.server.hear()
		if err != nil {
			t.Fatalf("%s: the victim's Confirm: %v", row.name, err)
		}
		m, err := smc.ParseAcceptConfirm(b)
		if err != nil || c.Info().Mode != libsmc.SMCD {
			t.Fatalf("%s: the victim's Confirm: %v, %s", row.name, err, c.Info())
		}
		victims := s.a.rawAttach(s.d, m.Token, smc.UncompressBufSize(m.DMBESize))
		extra = s.talk(row.name, own, victims, c.peerConn)
		s.a.drop(victims)
		return extra
	}
	reason, diagnosis := row.want.code, smc.DeclineCode(0)
	if reason == smc.DeclIPsec {
		reason, diagnosis = smc.DeclPeerDecl, smc.DeclIPsec // by the attacker
	} else if r, _ := c.server.judged(); r != row.want {
		t.Errorf("%s: the victim answers %v, want %v", row.name, r, row.want)
	}
	if i := c.Info(); i.Mode != libsmc.TCP || i.Reason != reason || i.PeerDiagnosis != diagnosis {
		t.Errorf("%s: %s; want TCP with reason %v, diagnosis %v", row.name, i, reason, diagnosis)
	}
	want.ClientFallback[reason.String()]++
	return 0
}

// TestHostileAcceptCuts: an Accept and a Decline cut after every byte.
func TestHostileAcceptCuts(t *testing.T) {
	s := newScene(t)
	l := s.a.Listen(marked, "tcp", "127.0.0.1:0")
	own := s.a.rawRegister(s.d, 64<<10)
	accept := s.a.Answer(smc.MsgAccept, own)
	var want handshakes
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, b := range [][]byte{encoded(&accept), aDecline(smc.V2, true)} {
		for k := 0; k < len(b); k += step {
			c := s.lure(l)
			c.server.say(b[:k])
			if k%2 == 0 {
				c.server.SetLinger(0)
			}
			wantError(t, "Close", c.server.Close(), nil)
			wantError(t, fmt.Sprintf("cut after %d bytes", k), c.Handshake(patience), syscall.ECONNRESET)
			want.ClientErrors++
		}
	}
	s.finish(0, want)
}

// TestHostileSilence: at each step of the handshake the other one says nothing more. A server gives up a message that has begun after 6
// seconds, waits for one that has not (TestSilentClients: for how many), and serves others meanwhile; a client waits for as long as its program does.
func TestHostileSilence(t *testing.T) {
	s := newScene(t)
	p := s.a.Proposal()
	confirm := s.a.Answer(smc.MsgConfirm, s.a.rawRegister(s.d, 64<<10))
	var want handshakes
	steps := []struct {
		name   string
		accept bool // after the victim's Accept
		late   bool // as a client under smc_run may be
		b      []byte
	}{
		{"before the first byte", false, true, nil},
		{"in the header", false, false, encoded(&p)[:5]},
		{"in the Proposal", false, false, encoded(&p)[:100]},
		{"before the Confirm", true, true, nil},
		{"in the Confirm", true, false, encoded(&confirm)[:100]},
	}
	began := time.Now()
	var all []*assault
	for _, step := range steps {
		c := s.a.Attack(s.l)
		if step.accept {
			c.accepted(p)
		}
		c.say(step.b)
		wantError(t, "SetDeadline", c.SetDeadline(patience), nil)
		all = append(all, c)
		want.ServerErrors++
	}
	l := s.a.Listen(marked, "tcp", "127.0.0.1:0")
	patient, hurried := s.lure(l), s.lure(l)
	wantError(t, "SetReadDeadline", hurried.SetReadDeadline(time.Second), nil)
	_, err := hurried.Read(1)
	wantError(t, "Read with a deadline", err, os.ErrDeadlineExceeded)
	s.well("beside silent ones")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a second's deadline and an honest handshake took %v", took)
	}
	for i, c := range all {
		if steps[i].late {
			continue
		}
		if r, _ := c.judged(); r != ends {
			t.Errorf("silent %s: the victim answers %v", steps[i].name, r)
		}
		if took := time.Since(began); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("silent %s: the server gives up after %v", steps[i].name, took)
		}
	}
	for i, c := range all {
		if !steps[i].late {
			continue
		}
		wantError(t, "SetDeadline", c.SetDeadline(moment), nil)
		if r, _ := c.judged(); r != fine {
			t.Errorf("silent %s: the victim answers %v", steps[i].name, r)
		}
		wantError(t, "Close", c.Close(), nil)
	}
	if i := patient.Info(); i.Mode != libsmc.Handshaking {
		t.Errorf("a client without a deadline: %s", i)
	}
	for _, c := range []*dialled{patient, hurried} { // Close ends its wait
		wantError(t, "Close", c.Close(), nil)
		wantError(t, "SetDeadline", c.server.SetDeadline(patience), nil)
		_, err := c.server.hear()
		wantError(t, "the server after a Close in the handshake", err, syscall.ECONNRESET)
	}
	s.wantErrors(&want)
	s.finish(0, want)
}

// TestHostileFlood: some hundred silent clients, while honest ones come and go, each in a moment.
func TestHostileFlood(t *testing.T) {
	s := newScene(t)
	p := s.a.Proposal()
	var all []*assault
	want := handshakes{}
	for i := range 400 {
		c := s.a.Attack(s.l)
		wantError(t, "SetDeadline", c.SetDeadline(2*patience), nil)
		c.say(encoded(&p)[:1+rand.IntN(p.Len()-1)])
		all = append(all, c)
		want.ServerErrors++
		if i%20 == 0 {
			began := time.Now()
			s.well(fmt.Sprintf("beside %d silent clients", i))
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("beside %d silent clients a connection took %v", i, took)
			}
		}
	}
	s.wantErrors(&want) // after 6 seconds
	s.well("after the flood")
	for _, c := range all {
		if r, _ := c.judged(); r != ends {
			t.Fatalf("a silent client gets %v", r)
		}
	}
	s.finish(0, want)
}
