// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

// TestDeathOfDaemonUnderSMC: established connections carry on to the last byte, new ones are TCP whoever has noticed, and
// after --replace new ones are SMC-D over the listeners that were there, and old ones belong to the new device.
func TestDeathOfDaemonUnderSMC(t *testing.T) {
	for _, mode := range []string{"0", "1"} {
		t.Run("dmb_copy "+mode, func(t *testing.T) { testDeathOfDaemon(t, mode) })
	}
}

func testDeathOfDaemon(t *testing.T, mode string) {
	d, client, server := smcPair(t, "--dmb-copy="+mode)
	plainSide := startPeer(t, "off")
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	there := client.Listen(overSMC, "tcp", "127.0.0.1:0") // the other way round
	bystander := plainSide.Listen(plain, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	c, e := connectTo(t, server, overSMC, there)
	wantSMCD(d, c, e)
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })

	// In flow, both ways.
	flow := later(func() (int, error) { return 0, transferChunks(b, a, 48<<20, 64<<10) })
	back := later(func() (int, error) { return 0, transferChunks(a, b, 48<<20, 64<<10) })
	time.Sleep(moment / 5)
	d.Kill()
	for _, wait := range []func() (int, error){flow, back} {
		if _, err := wait(); err != nil {
			t.Errorf("over the daemon's death: %v", err)
		}
	}
	exchange(c, e, 8<<20)

	// The client's process notices first (it dials), then the server's (it has been dialled).
	plainly := func(from *peer, how sockets, to *peerListener) {
		t.Helper()
		x := from.MustDial(how, "tcp", to.Address)
		y := to.MustAccept()
		talkPlainly(t, x, y)
	}
	plainly(plainSide, plain, l)
	plainly(client, overSMC, bystander)
	plainly(client, overSMC, l)
	plainly(server, overSMC, there)
	plainly(server, overSMC, bystander)
	plainly(startPeer(t, d.Point), overSMC, l)
	fresh := startPeer(t, d.Point).Listen(overSMC, "tcp", "127.0.0.1:0")
	plainly(client, overSMC, fresh)

	d2 := mountDeviceOn(t, d.Point, "--replace", "--dmb-copy="+mode)
	for _, way := range []struct {
		from *peer
		to   *peerListener
	}{{client, l}, {server, there}, {startPeer(t, d.Point), l}, {client, fresh}} {
		x, y := connectWhenSMC(t, way.from, way.to)
		wantSMCD(d2, x, y)
		d2.wantGrowth(2<<20, func() { exchange(x, y, 1<<20) })
		talkPlainlyClose(t, x, y)
	}
	exchange(a, b, 4<<20)
	exchange(c, e, 4<<20)

	// They are listed, and the switch reaches them.
	waitFor(t, "the old connections in conns", func() error {
		text := d2.Read("conns")
		for _, conn := range []*peerConn{a, b, c, e} {
			if !strings.Contains(text, conn.Local) {
				return fmt.Errorf("%s is missing in\n%s", conn.Local, text)
			}
		}
		return nil
	})
	wantError(t, "active 0", d2.Write("active", "0"), nil)
	for _, conn := range []*peerConn{a, b, c, e} {
		wantError(t, "SetReadDeadline", conn.SetReadDeadline(patience), nil)
		_, err := conn.Read(1)
		wantError(t, "Read of an old connection after active 0", err, syscall.ECONNABORTED)
		wantError(t, "Close", conn.Close(), nil)
	}
	wantError(t, "active 1", d2.Write("active", "1"), nil)
	x, y := connectWhenSMC(t, client, l)
	wantSMCD(d2, x, y)
	talkPlainlyClose(t, x, y)
	idleHeld(t, d2, client, server)
}

// talkPlainly fails the test unless two ends are plain TCP and each hears what the other says and nothing else.
func talkPlainly(t *testing.T, x, y *peerConn) {
	t.Helper()
	if x.Local != y.Remote {
		t.Fatalf("accepted %s, dialled from %s", y.Remote, x.Local)
	}
	wrote := later(func() (int, error) { return x.Write([]byte(question)) })
	got, err := y.ReadFull(len(question))
	wantText(t, "what the server heard", got, err, question)
	if _, err := wrote(); err != nil {
		t.Error(err)
	}
	for _, c := range []*peerConn{x, y} {
		if i := c.Info(); i.Mode != libsmc.TCP {
			t.Errorf("without a daemon: %s", i)
		}
	}
	say(t, y, greeting)
	hear(t, x, greeting)
	wantError(t, "CloseWrite", x.CloseWrite(), nil)
	hear(t, y, "")
	talkPlainlyClose(t, x, y)
}

func talkPlainlyClose(t *testing.T, x, y *peerConn) {
	t.Helper()
	wantError(t, "Close", x.Close(), nil)
	wantError(t, "Close", y.Close(), nil)
}

// connectWhenSMC connects until both ends are in SMC-D mode: they hear of a new device on their own.
func connectWhenSMC(t *testing.T, from *peer, to *peerListener) (x, y *peerConn) {
	t.Helper()
	waitFor(t, "SMC-D again", func() error {
		x, y = connectTo(t, from, overSMC, to)
		if i, k := x.Info(), y.Info(); i.Mode != libsmc.SMCD || k.Mode != libsmc.SMCD {
			talkPlainly(t, x, y)
			return fmt.Errorf("%s; %s", i, k)
		}
		return nil
	})
	return x, y
}

// TestUmountUnderSMC: umount refuses and lists, and nothing happens to the connections; --force aborts them on both ends.
func TestUmountUnderSMC(t *testing.T) {
	d, client, server := smcPair(t)
	a, b := connect(t, client, overSMC, server, overSMC)
	wantSMCD(d, a, b)
	command(t, "ismfs", "umount", d.Point).want(t, 6, fmt.Sprintf("pid %d", client.PID()), fmt.Sprintf("pid %d", server.PID()), "--force")
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
	read := later(func() ([]byte, error) { return a.Read(1) })
	write := later(func() (int, error) { return b.Write(make([]byte, 1<<20)) })
	_ = read
	command(t, "ismfs", "umount", "--force", d.Point).want(t, 0)
	_, err := write()
	wantError(t, "Write after umount --force", err, syscall.ECONNABORTED)
	for _, c := range []*peerConn{a, b} {
		wantError(t, "SetDeadline", c.SetDeadline(patience), nil)
		_, err := c.Write([]byte("x"))
		wantError(t, "Write after umount --force", err, syscall.ECONNABORTED)
		wantError(t, "Close", c.Close(), nil)
	}
	read()
	x, y := connect(t, client, overSMC, server, overSMC)
	talkPlainly(t, x, y)
}

// TestTermUnderSMC: SIGTERM breaks no connection. New ones are TCP, and the daemon ends after the last one.
func TestTermUnderSMC(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	d.Signal(syscall.SIGTERM)
	waitFor(t, "the daemon to drain", func() error {
		if s := d.Read("active"); !strings.HasPrefix(s, "drain") {
			return errors.New(s)
		}
		return nil
	})
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
	x := client.MustDial(overSMC, "tcp", l.Address)
	talkPlainly(t, x, l.MustAccept())
	exchange(a, b, 1<<20)
	talkPlainlyClose(t, a, b)
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Error("the daemon does not end with the last connection")
	}
}

// TestTogglesUnderSMC turns active off and on while connections come and go: each is whole, on TCP or SMC-D, or ends with
// ECONNABORTED; none hangs; in the end there is nothing left.
func TestTogglesUnderSMC(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	held := client.Held()
	storm := startStorm(client, l.Address, 3)
	for i := range 30 {
		wantError(t, "active", d.Write("active", []string{"0", "1", "drain", "1"}[i%4]), nil)
		time.Sleep(30 * time.Millisecond)
	}
	wantError(t, "active", d.Write("active", "1"), nil)
	storm.end(t)
	l2 := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l2)
	wantSMCD(d, a, b)
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
	talkPlainlyClose(t, a, b)
	idleHeld(t, d, client, server)
	held.Goroutines += 3
	held.Descriptors += 6 // what a process opens once
	held.Mappings += 2
	wantHeld(t, client, held, func() { client.CloseIdle() })
}

// TestIdleGroupOfBefore: a link group without connections goes with its epoch, also when the next connection between the same
// two processes comes before they have heard of it.
func TestIdleGroupOfBefore(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	for range 20 {
		a, b := connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		talkPlainlyClose(t, a, b)
		wantError(t, "active 0", d.Write("active", "0"), nil)
		wantError(t, "active 1", d.Write("active", "1"), nil)
	}
	idleHeld(t, d, client, server)
}

// TestDeathAfterDaemon: with the daemon dead, too, a process hears that its peer has died.
func TestDeathAfterDaemon(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := connect(t, client, overSMC, server, overSMC)
		c, e := connect(t, client, overSMC, server, overSMC)
		wantSMCD(d, a, b)
		wantSMCD(d, c, e)
		wantError(t, "SetDeadline", a.SetDeadline(patience), nil)
		wantError(t, "SetDeadline", c.SetDeadline(patience), nil)
		reads := later(func() ([]byte, error) { return a.Read(1) })
		writes := later(func() (int, error) { return c.Write(make([]byte, 1<<20)) })
		waitFull(t, c)
		d.Kill()
		server.Kill()
		_, err := reads()
		wantError(t, "Read of an idle connection", err, io.EOF)
		_, err = writes()
		wantError(t, "Write", err, syscall.ECONNRESET)
		talkPlainlyClose(t, a, c)
	})
}
