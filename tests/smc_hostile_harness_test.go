// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
	"golang.org/x/sys/unix"
)

// An attacker is a process of another uid that makes its handshakes by hand: marked sockets, any bytes for CLC, DMBs by their
// files. What it sends is right unless a test changes it.
type attacker struct {
	*peer
	d     *device
	local smc.Local
	id    uint32 // procs id
}

func startAttacker(t *testing.T, d *device) *attacker {
	t.Helper()
	a := &attacker{peer: startPeer(t, d.Point, asUser(1000)), d: d}
	a.Block(d)
	gid, err := smc.ParseGID(d.Read("gid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(a.Self(d), &a.id); err != nil {
		t.Fatal(err)
	}
	a.local = smc.Local{GID: gid, CHID: smc.CHIDLoopback, Active: true, Release: smc.Release, Features: smc.FeatureEmulatedISM}
	for name := range strings.FieldsSeq(d.Read("ueid")) {
		eid, err := smc.ParseEID(name)
		if err != nil {
			t.Fatal(err)
		}
		a.local.UEIDs = append(a.local.UEIDs, eid)
	}
	return a
}

// A rawDMB is one that a client has made, or attached, by hand. mapping is 0 where it must be written by system call: a
// peer's with dmb_copy 1.
type rawDMB struct {
	token       uint64
	fd, mapping int
	size        int
}

func tokenName(token uint64) string { return fmt.Sprintf("%016x", token) }

// rawRegister makes a DMB.
func (p *peer) rawRegister(d *device, size int) rawDMB {
	p.t.Helper()
	r := rawDMB{token: rand.Uint64() | 1, size: size}
	r.fd, r.mapping = p.Register(d, tokenName(r.token), size)
	return r
}

// rawAttach attaches one.
func (p *peer) rawAttach(d *device, token uint64, size int) rawDMB {
	p.t.Helper()
	r := rawDMB{token: token, size: size}
	path := d.Path("dmbs", tokenName(token))
	fd, err := p.Open(path, readWrite)
	switch {
	case errors.Is(err, syscall.EACCES):
		r.fd = p.MustOpen(path, unix.O_WRONLY)
		return r
	case err != nil:
		p.t.Fatalf("attaching %s: %v", path, err)
	}
	r.fd, r.mapping = fd, p.MustMap(fd, size)
	return r
}

func (p *peer) drop(r rawDMB) {
	p.t.Helper()
	if r.mapping != 0 {
		wantError(p.t, "munmap", p.Munmap(r.mapping), nil)
	}
	if r.fd != 0 {
		wantError(p.t, "close of a DMB", p.client.Close(r.fd), nil)
	}
}

// word stores a word of the header.
func (p *peer) word(r rawDMB, off int64, w uint64) {
	p.t.Helper()
	p.put(r, binary.NativeEndian.AppendUint64(nil, w), off)
}

// put writes bytes as the DMB's mode demands.
func (p *peer) put(r rawDMB, b []byte, off int64) {
	p.t.Helper()
	if r.mapping == 0 {
		wantError(p.t, "pwrite into a DMB", p.Pwrite(r.fd, b, off), nil)
		return
	}
	wantError(p.t, "store into a DMB", p.Store(r.mapping, b, off), nil)
}

// Proposal is what libsmc would send for this process.
func (a *attacker) Proposal() smc.Proposal {
	p := smc.NewProposal(a.local)
	p.SetProcess(a.id)
	return p
}

// Answer is a right Accept or Confirm for a first contact, without a doorbell page.
func (a *attacker) Answer(kind smc.MsgType, own rawDMB) smc.AcceptConfirm {
	return smc.AcceptConfirm{
		Type: kind, Version: smc.V2, TypeV1: smc.PathD, FirstContact: true,
		GID: a.local.GID, CHID: a.local.CHID, EID: a.local.UEIDs[0],
		Token: own.token, DMBESize: smc.CompressBufSize(own.size), LinkID: 0x100,
		FCE: &smc.FirstContactExt{
			OSType: smc.OSLinux, Release: smc.Release, Hostname: smc.PadHostname("attacker"),
			FeatureMask: smc.FeatureEmulatedISM, VendorExpOptions: a.id,
		},
	}
}

// encoded is a message's bytes.
func encoded(m interface{ AppendTo([]byte) ([]byte, error) }) []byte {
	b, err := m.AppendTo(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// patched is b with other bytes at off.
func patched(b []byte, off int, with ...byte) []byte {
	b = slices.Clone(b)
	copy(b[off:], with)
	return b
}

// An assault is one TCP connection of an attacker's, which says whatever the test wants.
type assault struct {
	*peerConn
	a *attacker
}

func (a *attacker) assault(c *peerConn) *assault {
	a.t.Helper()
	wantError(a.t, "SetDeadline", c.SetDeadline(patience/4), nil)
	return &assault{c, a}
}

// Attack connects as a client.
func (a *attacker) Attack(l *peerListener) *assault {
	a.t.Helper()
	return a.assault(a.MustDial(marked, "tcp", l.Address))
}

// say sends bytes. The victim may be gone already.
func (c *assault) say(b []byte) {
	c.t.Helper()
	_, err := c.Write(b)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		c.t.Errorf("sending CLC bytes: %v", err)
	}
}

// hear reads one message; an error says how the connection ended.
func (c *assault) hear() ([]byte, error) {
	b, err := c.ReadFull(smc.HeaderLen)
	if err != nil {
		return nil, err
	}
	h, err := smc.ParseHeader(b)
	if err != nil {
		return nil, err
	}
	rest, err := c.ReadFull(h.Length - smc.HeaderLen)
	return append(b, rest...), err
}

// A reaction is what a victim makes of a message: the message that it answers, or the end.
type reaction struct {
	answer    smc.MsgType // 0: it ends the connection
	code      smc.DeclineCode
	outOfSync bool
}

var ends = reaction{}

func declines(code smc.DeclineCode) reaction { return reaction{answer: smc.MsgDecline, code: code} }

func (v reaction) String() string {
	if v == ends {
		return "the end"
	}
	return fmt.Sprintf("%v %v (out of sync %v)", v.answer, v.code, v.outOfSync)
}

// judged reads a victim's answer.
func (c *assault) judged() (reaction, []byte) {
	c.t.Helper()
	b, err := c.hear()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ends, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fine, nil // a good Confirm is not answered
	case err != nil:
		c.t.Fatalf("the victim's answer: %v", err)
	}
	if d, err := smc.ParseDecline(b); err == nil {
		return reaction{smc.MsgDecline, d.Diagnosis, d.OutOfSync}, b
	}
	return reaction{answer: smc.MsgType(b[4])}, b
}

// accepted is the handshake up to the Accept, for the Proposal p.
func (c *assault) accepted(p smc.Proposal) smc.AcceptConfirm {
	c.t.Helper()
	c.say(encoded(&p))
	v, b := c.judged()
	if v.answer != smc.MsgAccept {
		c.t.Fatalf("the victim answers a good Proposal with %v", v)
	}
	m, err := smc.ParseAcceptConfirm(b)
	if err != nil {
		c.t.Fatalf("Accept: %v", err)
	}
	return m
}

// A scene is a victim and an honest peer with a connection that carries bytes from beginning to end, and an attacker.
type scene struct {
	t              *testing.T
	d              *device
	victim, honest *peer
	a              *attacker
	l              *peerListener  // the victim's
	accepted       chan *peerConn // by the victim, which always waits for one more

	atHonest, atVictim *peerConn // the ends of the connection that goes on
	stopped            atomic.Bool
	moved              atomic.Int64 // bytes that went over connections between the two
	steady             func() (int, error)
	thirds             []rawDMB // that the honest peer has made by hand
	xfer               int64
	counted            handshakes
	held               Held // by the victim, with nothing open but the listener
}

// scenes runs a test in both copy modes.
func scenes(t *testing.T, f func(t *testing.T, s *scene)) {
	for _, mode := range []string{"0", "1"} {
		t.Run("dmb_copy="+mode, func(t *testing.T) {
			t.Parallel() // each on its own device
			f(t, newScene(t, "--dmb-copy="+mode))
		})
	}
}

func newScene(t *testing.T, args ...string) *scene {
	t.Helper()
	d := mountSMC(t, args...)
	s := &scene{t: t, d: d, victim: startPeer(t, d.Point), honest: startPeer(t, d.Point), a: startAttacker(t, d)}
	s.l = s.victim.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, s.honest, overSMC, s.l) // what is made once in a process's life is made now
	wantSMCD(d, a, b)
	transfer(a, b, 100<<10)
	s.end(a, b)
	s.rest()
	s.held = s.victim.Held()
	s.xfer, s.counted = d.xferBytes(), d.handshakes()

	s.atHonest, s.atVictim = connectTo(t, s.honest, overSMC, s.l)
	wantSMCD(d, s.atHonest, s.atVictim)
	s.accepted = acceptAll(s.l)
	s.steady = later(s.carry)
	return s
}

// carry moves checksummed bytes, a little at a time both ways in turn, until it is stopped.
func (s *scene) carry() (rounds int, err error) {
	const n = 100 << 10
	for ; !s.stopped.Load(); rounds++ {
		for _, way := range [][2]*peerConn{{s.atHonest, s.atVictim}, {s.atVictim, s.atHonest}} {
			if err := transferChunks(way[0], way[1], n, 32<<10); err != nil {
				return rounds, err
			}
			s.moved.Add(n)
		}
		time.Sleep(time.Millisecond)
	}
	return rounds, nil
}

// acceptAll lets a victim accept for as long as its listener and its process last.
func acceptAll(l *peerListener) chan *peerConn {
	accepted := make(chan *peerConn, 64)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	return accepted
}

// accept returns the next connection that the victim accepted.
func (s *scene) accept() *peerConn {
	s.t.Helper()
	select {
	case c, ok := <-s.accepted:
		if !ok {
			s.t.Fatal("the victim's Accept has failed")
		}
		return c
	case <-time.After(patience):
		s.t.Fatalf("the victim has accepted nothing for %v", patience)
		return nil
	}
}

// well fails the test unless the next connection between victim and honest peer is as it should be: the one that Accept
// returns, SMC-D, in the link group of the connection that goes on.
func (s *scene) well(when string) {
	s.t.Helper()
	a := s.honest.MustDial(overSMC, "tcp", s.l.Address)
	b := s.accept()
	if b.Remote != a.Local {
		s.t.Fatalf("%s: the victim accepted %s, %s, not the honest peer", when, b.Remote, b.Info())
	}
	if err := a.Handshake(patience); err != nil {
		s.t.Fatalf("%s: an honest handshake: %v", when, err)
	}
	if err := checkSMCD(s.d.Read("gid"), a.Info(), b.Info()); err != nil {
		s.t.Fatalf("%s: %v", when, err)
	}
	if have, want := b.Info().LinkGroup, s.atVictim.Info().LinkGroup; have != want {
		s.t.Errorf("%s: a new link group %x beside %x", when, have, want)
	}
	const n = 10 << 10
	exchange(a, b, n)
	s.moved.Add(2 * n)
	s.end(a, b)
}

// end closes both ends of a connection.
func (s *scene) end(a, b *peerConn) {
	s.t.Helper()
	wantError(s.t, "Close", a.Close(), nil)
	wantError(s.t, "Close", b.Close(), nil)
}

// rest gives the DMBs back that are kept for reuse. The last word of a connection may still be on its way.
func (s *scene) rest() {
	s.t.Helper()
	waitFor(s.t, "the DMBs to go", func() error {
		s.victim.CloseIdle()
		s.honest.CloseIdle()
		if n := s.d.Read("dmbs_cnt"); n != "0" {
			return errors.New(n + " are left")
		}
		return nil
	})
}

// finish ends the scene: the connection that went on has lost nothing, xfer_bytes grew by exactly what was moved (extra is
// what the victim sent to the attacker), the handshakes were counted, and nobody holds anything any more.
func (s *scene) finish(extra int64, want handshakes) {
	s.t.Helper()
	s.well("at the end")
	s.stopped.Store(true)
	if rounds, err := s.steady(); err != nil {
		s.t.Errorf("the connection that goes on, after %d rounds: %v", rounds, err)
	}
	wantSMCD(s.d, s.atHonest, s.atVictim)
	if grown := s.d.xferBytes() - s.xfer; grown != s.moved.Load()+extra {
		s.t.Errorf("xfer_bytes grew by %d, want %d", grown, s.moved.Load()+extra)
	}
	have := s.d.handshakes().since(s.counted)
	if fmt.Sprint(have) != fmt.Sprint(want.orNone()) {
		s.t.Errorf("counted %+v, want %+v", have, want)
	}
	s.end(s.atHonest, s.atVictim)
	s.a.Kill()
	for _, r := range s.thirds {
		s.honest.drop(r)
	}
	s.rest()
	waitFor(s.t, "the victim to let go", func() error {
		have := s.victim.Held()
		have.Goroutines = max(have.Goroutines-1, 0) // the Accept that waits
		if have.Goroutines > s.held.Goroutines || have.Descriptors > s.held.Descriptors || have.Mappings > s.held.Mappings {
			return fmt.Errorf("it holds %+v, before it was %+v", have, s.held)
		}
		return nil
	})
	if stats := s.d.Stats(); len(stats.Device.Liars) != 0 {
		s.t.Errorf("the daemon names liars: %+v", stats.Device.Liars)
	}
}

func (h handshakes) orNone() handshakes {
	if h.ClientFallback == nil {
		h.ClientFallback = map[string]int{}
	}
	if h.ServerFallback == nil {
		h.ServerFallback = map[string]int{}
	}
	return h
}

// isTCP takes a connection of the victim's that has to be plain TCP for this reason, and closes it.
func (s *scene) isTCP(what string, c *peerConn, reason, diagnosis smc.DeclineCode) {
	s.t.Helper()
	if i := c.Info(); i.Mode != libsmc.TCP || i.Reason != reason || i.PeerDiagnosis != diagnosis {
		s.t.Errorf("%s: %s; want TCP with reason %v, diagnosis %v", what, i, reason, diagnosis)
	}
	wantError(s.t, "Close", c.Close(), nil)
}

// isOver takes a connection of the victim's in SMC-D mode whose peer has gone, reads it to its end and closes it.
func (s *scene) isOver(what string, c *peerConn) {
	s.t.Helper()
	if i := c.Info(); i.Mode != libsmc.SMCD {
		s.t.Errorf("%s: %s; want SMC-D", what, i)
	}
	wantError(s.t, "SetDeadline", c.SetDeadline(patience), nil)
	_, err := c.ReadAll()
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, unix.EPROTO) {
		s.t.Errorf("%s: read to the end: %v", what, err)
	}
	wantError(s.t, "Close", c.Close(), nil)
}
