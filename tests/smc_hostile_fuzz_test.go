// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/ismfs/ismfs/smc"
)

// TestHostileRandom: messages with random bytes changed, cut and put together, to a server and to a client, from fixed seeds.
// Whatever comes of each connection, the victim survives, hangs nowhere, loses nothing and serves others. ISMFS_SOAK says for
// how long more seeds are tried.
func TestHostileRandom(t *testing.T) { scenes(t, testHostileRandom) }

func testHostileRandom(t *testing.T, s *scene) {
	var until time.Time
	if text := os.Getenv("ISMFS_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("ISMFS_SOAK: %v", err)
		}
		until = time.Now().Add(d)
	}
	echo := s.victim.Listen(overSMC, "tcp", "127.0.0.1:0")
	echo.Echo()
	lure := s.a.Listen(marked, "tcp", "127.0.0.1:0")
	for seed := uint64(1); seed <= 150 || time.Now().Before(until); seed++ {
		r := rand.New(rand.NewPCG(seed, 2))
		s.randomClient(r, echo)
		s.randomServer(r, lure)
		if seed%50 == 0 {
			s.well("after random messages")
		}
	}
	wantError(t, "Close", echo.Close(), nil)
	s.well("after all random messages")
	s.counted = s.d.handshakes() // who could say what they were
	s.finish(0, handshakes{})
}

// spoilt is b with some bytes changed, more often those that matter, and sometimes cut, doubled or followed by others.
func spoilt(r *rand.Rand, b []byte) []byte {
	b = append([]byte(nil), b...)
	for range r.IntN(4) {
		at := r.IntN(len(b))
		if r.IntN(2) == 0 {
			at = r.IntN(min(len(b), 40))
		}
		b[at] = []byte{byte(r.Uint32()), b[at] ^ 1<<r.IntN(8), 0, 0xff, b[at] + 1}[r.IntN(5)]
	}
	switch r.IntN(8) {
	case 0:
		return b[:r.IntN(len(b))]
	case 1:
		return append(b, b...)
	case 2:
		return append(b, make([]byte, r.IntN(700))...)
	}
	return b
}

func (s *scene) randomClient(r *rand.Rand, l *peerListener) {
	s.t.Helper()
	c := s.a.Attack(l)
	p := s.a.Proposal()
	b := encoded(&p)
	if r.IntN(2) == 0 {
		b = spoilt(r, b)
	}
	c.say(b)
	if r.IntN(4) == 0 {
		c.Close()
		return
	}
	c.CloseWriteIf(r.IntN(2) == 0)
	wantError(s.t, "SetReadDeadline", c.SetReadDeadline(200*time.Millisecond), nil)
	answer, err := c.hear()
	if m, e := smc.ParseAcceptConfirm(answer); err == nil && e == nil {
		own := s.a.rawRegister(s.d, 64<<10)
		confirm := s.a.Answer(smc.MsgConfirm, own)
		if confirm.FirstContact = m.FirstContact; !m.FirstContact {
			confirm.FCE = nil
		}
		c.say(spoilt(r, encoded(&confirm)))
		defer s.a.drop(own)
	}
	c.Close()
}

// CloseWriteIf ends what the attacker says, if so. The victim may have ended everything.
func (c *assault) CloseWriteIf(so bool) {
	if so {
		c.CloseWrite()
	}
}

func (s *scene) randomServer(r *rand.Rand, l *peerListener) {
	s.t.Helper()
	v := s.lure(l)
	own := s.a.rawRegister(s.d, 64<<10)
	defer s.a.drop(own)
	m := s.a.Answer(smc.MsgAccept, own)
	m.LinkID = r.Uint32()
	v.server.say(spoilt(r, encoded(&m)))
	if r.IntN(2) == 0 {
		v.server.Close()
	}
	v.Handshake(100 * time.Millisecond)
	wantError(s.t, "SetDeadline", v.SetDeadline(moment), nil)
	v.Read(1)
	v.server.Close()
	v.Close() // an error is what it may say of such a peer
}
