// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/smc"
)

// inBothCopyModes runs a test with dmb_copy 0 and 1, on two devices beside one another.
func inBothCopyModes(t *testing.T, f func(t *testing.T, d *device, client, server *peer)) {
	for _, mode := range []string{"0", "1"} {
		t.Run("dmb_copy="+mode, func(t *testing.T) {
			t.Parallel()
			d, client, server := smcPair(t, "--dmb-copy="+mode)
			f(t, d, client, server)
		})
	}
}

// pairIn connects in SMC-D mode and sees that dmb_copy is what it should be.
func pairIn(t *testing.T, d *device, client, server *peer) (a, b *peerConn) {
	t.Helper()
	a, b = connect(t, client, overSMC, server, overSMC)
	wantSMCD(d, a, b)
	if want := d.Read("dmb_copy")[0] == '1'; a.Info().Copied != want || b.Info().Copied != want {
		t.Errorf("copied: %v, %v, want %v", a.Info().Copied, b.Info().Copied, want)
	}
	return a, b
}

func wantState(t *testing.T, c *peerConn, want smc.State) {
	t.Helper()
	if have := c.Info().State; have != want {
		t.Errorf("state %v, want %v", have, want)
	}
}

// waitFull waits until a Write has filled the peer's ring, so that it waits for room, or is about to.
func waitFull(t *testing.T, c *peerConn) {
	t.Helper()
	waitFor(t, "a full ring", func() error {
		if i := c.Info(); i.BytesWritten != uint64(i.WriteBuffer) {
			return fmt.Errorf("%d of %d bytes are written", i.BytesWritten, i.WriteBuffer)
		}
		return nil
	})
	time.Sleep(moment)
}

func TestHalfClose(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		for _, clientEnds := range []bool{true, false} {
			a, b := pairIn(t, d, client, server)
			if !clientEnds {
				a, b = b, a
			}
			d.wantGrowth(5+300<<10, func() {
				say(t, a, "first")
				wantState(t, a, smc.PeerCloseWait1)
				_, err := a.Write([]byte("x"))
				wantError(t, "Write after CloseWrite", err, syscall.EPIPE)
				hear(t, b, "first")
				wantState(t, b, smc.AppCloseWait1)
				transfer(b, a, 300<<10) // the other direction is open
				wantError(t, "CloseWrite of the other end", b.CloseWrite(), nil)
				hear(t, a, "")
				hear(t, b, "")
			})
			wantError(t, "Close", a.Close(), nil)
			wantError(t, "Close", b.Close(), nil)
		}
	})
}

// TestCloseWriteWakes: a Read that waits hears of the end, and a Write that waits in the same process fails.
func TestCloseWriteWakes(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		heard := later(func() ([]byte, error) { return b.ReadFull(1) })
		time.Sleep(moment)
		wantError(t, "CloseWrite", a.CloseWrite(), nil)
		_, err := heard()
		wantError(t, "the waiting Read", err, io.EOF)
		wrote := later(func() (int, error) { return b.Write(make([]byte, 1<<20)) })
		waitFull(t, b)
		wantError(t, "CloseWrite", b.CloseWrite(), nil)
		n, err := wrote()
		wantError(t, "the waiting Write", err, syscall.EPIPE)
		if n != b.Info().WriteBuffer {
			t.Errorf("wrote %d bytes into a ring of %d", n, b.Info().WriteBuffer)
		}
		if got, err := a.ReadAll(); err != nil || len(got) != n {
			t.Errorf("read %d bytes, %v, of %d", len(got), err, n)
		}
	})
}

func TestCloseRead(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		read := later(func() ([]byte, error) { return a.Read(1) })
		time.Sleep(moment)
		wantError(t, "CloseRead", a.CloseRead(), nil)
		_, err := read()
		wantError(t, "the waiting Read", err, io.EOF)
		_, err = a.Read(1)
		wantError(t, "Read", err, io.EOF)
		d.wantGrowth(100<<10, func() { transfer(a, b, 100<<10) }) // writing goes on
		_, err = b.Write([]byte("unheard"))
		wantError(t, "Write to who does not read", err, nil)
	})
}

func TestCloseWithUnread(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		for _, before := range []bool{true, false} { // the peer waits already, or comes later
			a, b := pairIn(t, d, client, server)
			d.wantGrowth(6, func() {
				_, err := a.Write([]byte("unread"))
				wantError(t, "Write", err, nil)
			})
			read := func() ([]byte, error) { return a.Read(1) }
			if before {
				read = later(read)
				time.Sleep(moment)
			}
			wantError(t, "Close", b.Close(), nil)
			_, err := read()
			wantError(t, "Read after the peer closed with bytes unread", err, syscall.ECONNRESET)
			_, err = a.Write([]byte("x"))
			if err == nil {
				t.Error("Write after the peer closed succeeds")
			}
		}
	})
}

// TestUnreadSurvivesClose: what was written before an ordinary Close is read after it.
func TestUnreadSurvivesClose(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		d.wantGrowth(9, func() {
			_, err := a.Write([]byte("last word"))
			wantError(t, "Write", err, nil)
			wantError(t, "Close", a.Close(), nil)
			hear(t, b, "last word")
		})
		_, err := b.Write([]byte("x"))
		if err == nil {
			t.Error("Write to a closed peer succeeds")
		}
		wantError(t, "Close", b.Close(), nil)
	})
}

func TestLinger0(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		for _, early := range []bool{true, false} { // set before the handshake, or after it
			l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
			a := client.MustDial(overSMC, "tcp", l.Address)
			if early {
				wantError(t, "SetLinger", a.SetLinger(0), nil)
			}
			b := l.MustAccept()
			wantError(t, "handshake", a.Handshake(0), nil)
			wantSMCD(d, a, b)
			if !early {
				wantError(t, "SetLinger", a.SetLinger(0), nil)
			}
			read := later(func() ([]byte, error) { return b.Read(1) })
			time.Sleep(moment)
			wantError(t, "Close", a.Close(), nil)
			_, err := read()
			wantError(t, "Read after the peer's abort", err, syscall.ECONNRESET)
		}
	})
}

// TestAfterClose: every call says net.ErrClosed, also one that waits.
func TestAfterClose(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		read := later(func() ([]byte, error) { return a.Read(1) })
		wrote := later(func() (int, error) { return b.Write(make([]byte, 1<<20)) })
		time.Sleep(moment)
		_, err := read()
		wantError(t, "Read", err, nil)
		read = later(func() ([]byte, error) { return a.ReadFull(2 << 20) })
		_, err = wrote()
		wantError(t, "Write", err, nil)
		wrote = later(func() (int, error) { return a.Write(make([]byte, 1<<20)) })
		time.Sleep(moment)
		wantError(t, "Close", a.Close(), nil)
		_, err = read()
		wantError(t, "the waiting Read", err, net.ErrClosed)
		_, err = wrote()
		wantError(t, "the waiting Write", err, net.ErrClosed)
		_, err = a.Read(1)
		wantError(t, "Read", err, net.ErrClosed)
		_, err = a.Write([]byte("x"))
		wantError(t, "Write", err, net.ErrClosed)
		for what, f := range map[string]func() error{
			"Close": a.Close, "CloseRead": a.CloseRead, "CloseWrite": a.CloseWrite,
			"SetDeadline": func() error { return a.SetDeadline(time.Second) },
			"SetLinger":   func() error { return a.SetLinger(0) },
		} {
			wantError(t, what, f(), net.ErrClosed)
		}
	})
}

// TestKilledPeer: the end of a process looks as it does with TCP.
func TestKilledPeer(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		victim := startPeer(t, d.Point)
		idle, idleThere := pairIn(t, d, client, victim)
		busy, busyThere := pairIn(t, d, client, victim)
		wantSMCD(d, busy, busyThere)
		waiting := later(func() ([]byte, error) { return idle.Read(1) })
		_, err := busy.Write([]byte("never read"))
		wantError(t, "Write", err, nil)
		_, err = idleThere.Write([]byte("x"))
		wantError(t, "Write", err, nil)
		got, err := waiting()
		wantText(t, "Read", got, err, "x")
		victim.Kill()
		_, err = idle.Read(1)
		wantError(t, "Read of the idle connection", err, io.EOF)
		_, err = busy.Read(1)
		wantError(t, "Read of the connection with unread bytes", err, syscall.ECONNRESET)

		a, b := pairIn(t, d, client, server) // others are well
		d.wantGrowth(2000, func() { exchange(a, b, 1000) })
	})
}

// TestActive0: the switch aborts what there is and keeps new connections on TCP, until it is turned on.
func TestActive0(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		a, b := connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		c, e := connectTo(t, client, overSMC, l)
		wantSMCD(d, c, e)
		calls := make(map[string]func() (int, error))
		for name, conn := range map[string]*peerConn{"client": a, "server": b} {
			calls["Read of the "+name] = later(func() (int, error) { _, err := conn.Read(1); return 0, err })
		}
		calls["Write of the client"] = later(func() (int, error) { return c.Write(make([]byte, 1<<20)) })
		calls["Write of the server"] = later(func() (int, error) { return e.Write(make([]byte, 1<<20)) })
		time.Sleep(moment)
		wantError(t, "active 0", d.Write("active", "0"), nil)
		for what, wait := range calls {
			_, err := wait()
			wantError(t, what, err, syscall.ECONNABORTED)
		}
		for _, conn := range []*peerConn{a, b, c, e} {
			_, err := conn.Write([]byte("x"))
			wantError(t, "Write afterwards", err, syscall.ECONNABORTED)
			wantError(t, "Close", conn.Close(), nil)
		}
		plainly := func() {
			t.Helper()
			x, y := connectTo(t, client, overSMC, l)
			wantTCP(x, smc.DeclNoSMCDev, 0)
			wantTCP(y, smc.DeclPeerDecl, smc.DeclNoSMCDev)
			d.wantGrowth(0, func() { exchange(x, y, 100<<10) })
		}
		plainly()
		wantError(t, "active 1", d.Write("active", "1"), nil)
		a, b = connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		d.wantGrowth(200<<10, func() { exchange(a, b, 100<<10) })

		// drain: what lives goes on, nothing new.
		wantError(t, "drain", d.Write("active", "drain"), nil)
		plainly()
		d.wantGrowth(200<<10, func() { exchange(a, b, 100<<10) })
		wantError(t, "active 1", d.Write("active", "1"), nil)
		c, e = connectTo(t, client, overSMC, l)
		wantSMCD(d, c, e)
		d.wantGrowth(400<<10, func() { exchange(a, b, 100<<10); exchange(c, e, 100<<10) })
		for _, conn := range []*peerConn{a, b, c, e} {
			wantError(t, "Close", conn.Close(), nil)
		}
		client.CloseIdle()
		server.CloseIdle()
		d.WantCount(0)
	})
}

// TestKnobsLive: dmb_copy and dmb_type count for connections made after them, and move no byte of the others.
func TestKnobsLive(t *testing.T) {
	d, client, server := smcPair(t)
	var pairs [][2]*peerConn
	for _, knobs := range []struct{ copied, kind string }{{"0", "0"}, {"1", "0"}, {"1", "1"}, {"0", "1"}, {"0", "0"}} {
		wantError(t, "dmb_copy", d.Write("dmb_copy", knobs.copied), nil)
		wantError(t, "dmb_type", d.Write("dmb_type", knobs.kind), nil)
		a, b := pairIn(t, d, client, server)
		pairs = append(pairs, [2]*peerConn{a, b})
		d.wantGrowth(int64(len(pairs))*(600<<10), func() {
			for _, p := range pairs {
				exchange(p[0], p[1], 300<<10)
			}
		})
		if pairs[0][0].Info().Copied {
			t.Error("the first connection has changed")
		}
	}
	// DMBs that are kept for reuse are of one mode: the next connection has the one that the knob says.
	for _, p := range pairs {
		wantError(t, "Close", p[0].Close(), nil)
		wantError(t, "Close", p[1].Close(), nil)
	}
	for _, mode := range []string{"1", "0", "1"} {
		wantError(t, "dmb_copy", d.Write("dmb_copy", mode), nil)
		a, b := pairIn(t, d, client, server)
		d.wantGrowth(600<<10, func() { exchange(a, b, 300<<10) })
	}
}
