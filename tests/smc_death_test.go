// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// TestDeathOfClientInHandshake kills a client at each step. The server discards that connection, and nothing stays behind.
func TestDeathOfClientInHandshake(t *testing.T) { scenes(t, testDeathOfClientInHandshake) }

func testDeathOfClientInHandshake(t *testing.T, s *scene) {
	var want handshakes
	for _, step := range []struct {
		name string
		run  func(a *attacker, c *assault)
		made bool // there is a connection: the victim hears of the death on it
	}{
		{"before the Proposal", func(a *attacker, c *assault) {}, false},
		{"in the Proposal", func(a *attacker, c *assault) { p := a.Proposal(); c.say(encoded(&p)[:50]) }, false},
		{"after the Proposal", func(a *attacker, c *assault) { p := a.Proposal(); c.say(encoded(&p)) }, false},
		{"after the Accept", func(a *attacker, c *assault) { c.accepted(a.Proposal()) }, false},
		{"after the Accept, with a DMB", func(a *attacker, c *assault) {
			m := c.accepted(a.Proposal())
			a.rawRegister(s.d, 64<<10)
			a.rawAttach(s.d, m.Token, smc.UncompressBufSize(m.DMBESize))
		}, false},
		{"in the Confirm", func(a *attacker, c *assault) {
			c.accepted(a.Proposal())
			m := a.Answer(smc.MsgConfirm, a.rawRegister(s.d, 64<<10))
			c.say(encoded(&m)[:100])
		}, false},
		{"after the Confirm", func(a *attacker, c *assault) {
			c.accepted(a.Proposal())
			m := a.Answer(smc.MsgConfirm, a.rawRegister(s.d, 64<<10))
			c.say(encoded(&m))
		}, true},
	} {
		a := startAttacker(t, s.d)
		c := a.Attack(s.l)
		step.run(a, c)
		if !step.made {
			a.Kill()
			want.ServerErrors++
			s.wantErrors(&want)
			s.well("after a death " + step.name)
			continue
		}
		v := s.accept()
		a.Kill()
		s.isOver(step.name, v)
	}

	// With its Confirm the client may die before the server has seen its DMB: then there is none to be seen.
	for range 10 {
		a := startAttacker(t, s.d)
		c := a.Attack(s.l)
		c.accepted(a.Proposal())
		m := a.Answer(smc.MsgConfirm, a.rawRegister(s.d, 64<<10))
		c.say(encoded(&m)[:129])
		go c.Write(encoded(&m)[129:])
		a.Kill()
	}
	time.Sleep(moment)
	s.wellAmongDead()
	have := s.d.handshakes().since(s.counted)
	want.ServerErrors = have.ServerErrors // some of the ten
	s.finish(0, want)
}

// wellAmongDead takes connections of dead clients away until the honest one comes.
func (s *scene) wellAmongDead() {
	s.t.Helper()
	a := s.honest.MustDial(overSMC, "tcp", s.l.Address)
	for {
		b := s.accept()
		if b.Remote != a.Local {
			s.isOver("a dead client", b)
			continue
		}
		wantError(s.t, "Handshake", a.Handshake(patience), nil)
		wantSMCD(s.d, a, b)
		s.end(a, b)
		return
	}
}

// TestDeathOfServerInHandshake kills a server at each step, while the client's first call waits.
func TestDeathOfServerInHandshake(t *testing.T) { scenes(t, testDeathOfServerInHandshake) }

func testDeathOfServerInHandshake(t *testing.T, s *scene) {
	want := handshakes{}
	for _, step := range []struct {
		name string
		run  func(a *attacker, l *peerListener)
		made bool
	}{
		{"before accept", func(a *attacker, l *peerListener) {}, false},
		{"before it reads", func(a *attacker, l *peerListener) { l.MustAccept() }, false},
		{"after the Proposal", func(a *attacker, l *peerListener) { a.assault(l.MustAccept()).hear() }, false},
		{"in the Accept", func(a *attacker, l *peerListener) {
			c := a.assault(l.MustAccept())
			c.hear()
			m := a.Answer(smc.MsgAccept, a.rawRegister(s.d, 64<<10))
			c.say(encoded(&m)[:100])
		}, false},
		{"after the Confirm", func(a *attacker, l *peerListener) {
			c := a.assault(l.MustAccept())
			c.hear()
			m := a.Answer(smc.MsgAccept, a.rawRegister(s.d, 64<<10))
			c.say(encoded(&m))
			c.hear()
		}, true},
	} {
		a := startAttacker(t, s.d)
		l := a.Listen(marked, "tcp", "127.0.0.1:0")
		v := s.victim.MustDial(overSMC, "tcp", l.Address)
		read := later(func() ([]byte, error) { return v.Read(1) })
		step.run(a, l)
		a.Kill()
		_, err := read()
		switch {
		case step.made && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
			t.Errorf("%s: Read: %v", step.name, err)
		case !step.made:
			wantError(t, step.name+": Read", err, syscall.ECONNRESET)
			want.ClientErrors++
		}
		if i := v.Info(); step.made && i.Mode != libsmc.SMCD {
			t.Errorf("%s: %s", step.name, i)
		}
		wantError(t, step.name+": Close", v.Close(), nil)
		s.well("after a death " + step.name)
	}
	s.finish(0, want)
}

// TestDeathInTransfer kills either end while bytes flow both ways. The survivor hears of it as it would from TCP, and its
// resources go.
func TestDeathInTransfer(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, survivor, _ *peer) {
		l := survivor.Listen(overSMC, "tcp", "127.0.0.1:0")
		elsewhere := startPeer(t, d.Point)
		warm, warmThere := connectTo(t, elsewhere, overSMC, l) // what is made once is made now
		wantSMCD(d, warm, warmThere)
		for _, c := range []*peerConn{warm, warmThere} {
			wantError(t, "Close", c.Close(), nil)
		}
		held := idleHeld(t, d, survivor, elsewhere)
		for round := range 6 {
			dead := startPeer(t, d.Point)
			var mine, its *peerConn
			if round%2 == 0 {
				its, mine = connectTo(t, dead, overSMC, l)
				wantSMCD(d, its, mine)
			} else {
				there := dead.Listen(overSMC, "tcp", "127.0.0.1:0")
				mine, its = connectTo(t, survivor, overSMC, there)
				wantSMCD(d, mine, its)
			}
			wantError(t, "SetDeadline", mine.SetDeadline(patience), nil)
			calls := []func() (string, error){
				later(func() (string, error) { return its.Send(1, 1<<40, 64<<10) }),
				later(func() (string, error) { return its.Receive(2, 1<<40, 64<<10) }),
				later(func() (string, error) { return mine.Send(3, 1<<40, 64<<10) }),
				later(func() (string, error) { return mine.Receive(4, 1<<40, 64<<10) }),
			}
			time.Sleep(time.Duration(20+10*round) * time.Millisecond)
			dead.Kill()
			for _, c := range calls[:2] {
				c()
			}
			_, err := calls[2]()
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("round %d: the survivor's Write: %v", round, err)
			}
			_, err = calls[3]()
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
				t.Errorf("round %d: the survivor's Read: %v", round, err)
			}
			wantError(t, "Close", mine.Close(), nil)
		}
		wantHeld(t, survivor, held, func() { survivor.CloseIdle() })
		d.WantCount(0)
	})
}

// idleHeld is what a process holds once its connections have gone.
func idleHeld(t *testing.T, d *device, all ...*peer) Held {
	t.Helper()
	waitFor(t, "the DMBs to go", func() error {
		for _, p := range all {
			p.CloseIdle()
		}
		if n := d.Read("dmbs_cnt"); n != "0" {
			return fmt.Errorf("%s are left; conns:\n%s", n, d.Read("conns"))
		}
		return nil
	})
	return all[0].Held()
}

// wantHeld waits until a process holds no more than before.
func wantHeld(t *testing.T, p *peer, before Held, between func()) {
	t.Helper()
	waitFor(t, "a process to let go", func() error {
		between()
		h := p.Held()
		if h.Goroutines > before.Goroutines || h.Descriptors > before.Descriptors || h.Mappings > before.Mappings {
			return fmt.Errorf("it holds %+v, before it was %+v", h, before)
		}
		return nil
	})
}

// TestExitWithoutClose: a process ends without a word. What it wrote arrives, then the end.
func TestExitWithoutClose(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, survivor, _ *peer) {
		leaver := startPeer(t, d.Point)
		l := survivor.Listen(overSMC, "tcp", "127.0.0.1:0")
		a, b := connectTo(t, leaver, overSMC, l)
		wantSMCD(d, a, b)
		const text = "the last words"
		d.wantGrowth(int64(len(text)), func() {
			_, err := a.Write([]byte(text))
			wantError(t, "Write", err, nil)
		})
		leaver.rpc.Close() // its standard input ends, and so it does
		if err := leaver.cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		got, err := b.ReadAll()
		wantText(t, "read from who has gone", got, err, text)
		_, err = b.Write([]byte("x"))
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write to who has gone: %v", err)
		}
		wantError(t, "Close", b.Close(), nil)
		idleHeld(t, d, survivor)
	})
}
