// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// handshakes is the "handshake" object of the file stats.
type handshakes struct {
	ClientErrors   int            `json:"client_errors"`
	ServerErrors   int            `json:"server_errors"`
	ClientFallback map[string]int `json:"client_fallback"`
	ServerFallback map[string]int `json:"server_fallback"`
}

func (d *device) handshakes() handshakes {
	d.t.Helper()
	var s struct{ Handshake handshakes }
	if err := json.Unmarshal([]byte(d.Read("stats")), &s); err != nil {
		d.t.Fatal(err)
	}
	return s.Handshake
}

// since takes away what was counted before.
func (h handshakes) since(before handshakes) handshakes {
	return handshakes{
		h.ClientErrors - before.ClientErrors, h.ServerErrors - before.ServerErrors,
		grown(h.ClientFallback, before.ClientFallback), grown(h.ServerFallback, before.ServerFallback),
	}
}

func grown(now, before map[string]int) map[string]int {
	m := make(map[string]int)
	for name, n := range now {
		if n -= before[name]; n != 0 {
			m[name] = n
		}
	}
	return m
}

// One end of a combination.
type end struct {
	name    string
	how     sockets
	process *peer
	device  *device // nil: none
}

// fallback is what one end is to say: zero is SMC-D.
type fallback struct{ reason, diagnosis smc.DeclineCode }

// wantFallbacks is the reference's 1.6 to 1.10 for a client and a server.
func wantFallbacks(client, server *device) (c, s fallback) {
	switch {
	case client != nil && client == server:
		return
	case client != nil && server != nil:
		// The host answers the SYN of any of its devices, so it is for CLC to say no.
		return fallback{smc.DeclPeerDecl, smc.DeclNoSMCD2Dev}, fallback{reason: smc.DeclNoSMCD2Dev}
	}
	c, s = fallback{reason: smc.DeclPeerNoSMC}, fallback{reason: smc.DeclPeerNoSMC}
	if client == nil {
		c = fallback{reason: smc.DeclNoSMCDev}
	}
	if server == nil {
		s = fallback{reason: smc.DeclNoSMCDev}
	}
	return c, s
}

// TestCombinations: client and server are each on a device, plain, without a device, or on another device. Each gets the mode
// and reason that it should, in Info and in the counters, and the bytes that the other's program wrote and no others.
func TestCombinations(t *testing.T) {
	one, other := mountSMC(t), mountSMC(t)
	ends := func() []end {
		return []end{
			{"smc", overSMC, startPeer(t, one.Point), one},
			{"plain", plain, startPeer(t, "off"), nil},
			{"off", overSMC, startPeer(t, "off"), nil},
			{"other", overSMC, startPeer(t, other.Point), other},
		}
	}
	servers := ends()
	for _, client := range ends() {
		for _, server := range servers {
			t.Run(client.name+" to "+server.name, func(t *testing.T) {
				l := server.process.Listen(server.how, "tcp", "127.0.0.1:0")
				defer l.Close()
				for _, talk := range []conversation{serverFirst, clientFirst, bothAtOnce} {
					combine(t, []*device{one, other}, client, server, int64(len(question)+len(greeting)),
						func() { talk(t, server.device, client, l) })
				}
				combine(t, []*device{one, other}, client, server, 0, func() { silence(t, server.device, client, l) })
			})
		}
	}
}

// A conversation is had over a new connection of the client to the listener, whose device is d.
type conversation func(t *testing.T, d *device, client end, l *peerListener)

// combine has one conversation of so many bytes, and looks at what the devices count meanwhile.
func combine(t *testing.T, devices []*device, client, server end, bytes int64, talk func()) {
	t.Helper()
	handshakesBefore, xferBefore := make(map[*device]handshakes), make(map[*device]int64)
	for _, d := range devices {
		handshakesBefore[d], xferBefore[d] = d.handshakes(), d.xferBytes()
	}
	talk()
	c, s := wantFallbacks(client.device, server.device)
	for _, d := range devices {
		want := handshakes{ClientFallback: map[string]int{}, ServerFallback: map[string]int{}}
		if client.device == d && c.reason != 0 {
			want.ClientFallback[c.reason.String()] = 1
		}
		if server.device == d && s.reason != 0 {
			want.ServerFallback[s.reason.String()] = 1
		}
		moved := int64(0)
		if client.device == d && server.device == d {
			moved = bytes
		}
		if n := d.xferBytes() - xferBefore[d]; n != moved {
			t.Errorf("xfer_bytes grew by %d, want %d", n, moved)
		}
		have := d.handshakes().since(handshakesBefore[d])
		if !maps.Equal(have.ClientFallback, want.ClientFallback) || !maps.Equal(have.ServerFallback, want.ServerFallback) ||
			have.ClientErrors+have.ServerErrors != 0 {
			t.Errorf("counted %+v, want %+v", have, want)
		}
	}
}

// checkEnds compares what both ends say of a connection with what they should.
func checkEnds(t *testing.T, client end, d *device, a, b *peerConn) {
	t.Helper()
	c, s := wantFallbacks(client.device, d)
	if c == (fallback{}) {
		wantSMCD(d, a, b)
		return
	}
	for _, e := range []struct {
		*peerConn
		fallback
	}{{a, c}, {b, s}} {
		if !e.Info().Plain {
			wantTCP(e.peerConn, e.reason, e.diagnosis)
		}
	}
}

// dialCombination connects. A plain peer's connection is settled when Dial and Accept return: nobody waits for anything.
func dialCombination(t *testing.T, client end, l *peerListener) (a, b *peerConn) {
	t.Helper()
	a = client.process.MustDial(client.how, "tcp", l.Address)
	b = l.MustAccept()
	if b.Info().Mode == libsmc.Handshaking {
		t.Error("accepted before it was settled")
	}
	return a, b
}

// say writes to one end, and ends it; hear reads everything at the other.
func say(t *testing.T, c *peerConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Errorf("writing %q: %v", text, err)
	}
	wantError(t, "CloseWrite", c.CloseWrite(), nil)
}

func hear(t *testing.T, c *peerConn, text string) {
	t.Helper()
	got, err := c.ReadAll()
	wantText(t, fmt.Sprintf("what %s got", c.Local), got, err, text)
}

const (
	question = "GET / HTTP/1.0\r\n\r\n"
	greeting = "220 ready\r\n"
)

func serverFirst(t *testing.T, d *device, client end, l *peerListener) {
	a, b := dialCombination(t, client, l)
	say(t, b, greeting)
	hear(t, a, greeting)
	say(t, a, question)
	hear(t, b, question)
	closeBoth(t, client, d, a, b)
}

func clientFirst(t *testing.T, d *device, client end, l *peerListener) {
	// The client's first call waits for the handshake, if there is one.
	a := client.process.MustDial(client.how, "tcp", l.Address)
	wrote := later(func() (int, error) { return a.Write([]byte(question)) })
	b := l.MustAccept()
	if _, err := wrote(); err != nil {
		t.Error(err)
	}
	wantError(t, "CloseWrite", a.CloseWrite(), nil)
	hear(t, b, question)
	say(t, b, greeting)
	hear(t, a, greeting)
	closeBoth(t, client, d, a, b)
}

func bothAtOnce(t *testing.T, d *device, client end, l *peerListener) {
	a, b := dialCombination(t, client, l)
	wrote := later(func() (int, error) { return a.Write([]byte(question)) })
	say(t, b, greeting)
	if _, err := wrote(); err != nil {
		t.Error(err)
	}
	wantError(t, "CloseWrite", a.CloseWrite(), nil)
	hear(t, b, question)
	hear(t, a, greeting)
	closeBoth(t, client, d, a, b)
}

func silence(t *testing.T, d *device, client end, l *peerListener) {
	a, b := dialCombination(t, client, l)
	wantError(t, "CloseWrite", a.CloseWrite(), nil)
	wantError(t, "CloseWrite", b.CloseWrite(), nil)
	hear(t, a, "")
	hear(t, b, "")
	closeBoth(t, client, d, a, b)
}

func closeBoth(t *testing.T, client end, d *device, a, b *peerConn) {
	t.Helper()
	checkEnds(t, client, d, a, b)
	wantError(t, "Close", a.Close(), nil)
	wantError(t, "Close", b.Close(), nil)
}

// TestPlainPeersDoNotWait: a connection to a plain server is settled when Dial returns, and a plain client is accepted while
// clients that have announced SMC and say nothing are still in their handshakes.
func TestPlainPeersDoNotWait(t *testing.T) {
	d := mountSMC(t)
	smcSide, plainSide := startPeer(t, d.Point), startPeer(t, d.Point)

	server := plainSide.Listen(plain, "tcp", "127.0.0.1:0")
	a := smcSide.MustDial(overSMC, "tcp", server.Address) // nobody accepts
	if i := a.Info(); i.Mode != libsmc.TCP || i.Reason != smc.DeclPeerNoSMC {
		t.Errorf("dialled a plain server: %s", i)
	}

	l := smcSide.Listen(overSMC, "tcp", "127.0.0.1:0")
	var silent []*peerConn
	for range 20 {
		silent = append(silent, plainSide.MustDial(marked, "tcp", l.Address))
	}
	b := plainSide.MustDial(plain, "tcp", l.Address)
	accepted := l.MustAccept()
	if i := accepted.Info(); accepted.Remote != b.Local || i.Mode != libsmc.TCP || i.Reason != smc.DeclPeerNoSMC {
		t.Errorf("accepted %s, %s, not the plain client", accepted.Remote, i)
	}
	say(t, accepted, greeting)
	hear(t, b, greeting)
	for _, c := range silent { // and they were in their handshakes all the time: not one byte, and no end
		wantError(t, "SetReadDeadline", c.SetReadDeadline(-1), nil)
		_, err := c.Read(1)
		wantError(t, "Read of a silent client", err, os.ErrDeadlineExceeded)
	}
	if h := d.handshakes(); h.ServerErrors != 0 {
		t.Errorf("handshakes have ended: %+v", h)
	}
}
