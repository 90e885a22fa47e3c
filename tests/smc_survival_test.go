// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// Listeners and connections that outlive what they were made with.

// TestListenerAfterUmount: a listener outlives the device that it was marked for, and the programs of the last one, and serves
// plain clients at once.
func TestListenerAfterUmount(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	talkPlainlyClose(t, a, b)
	idleHeld(t, d, client, server)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	for range 10 {
		for _, how := range []sockets{plain, overSMC} {
			x := client.MustDial(how, "tcp", l.Address)
			talkPlainly(t, x, l.MustAccept())
		}
		time.Sleep(moment)
	}
}

// TestListenerWithoutPrograms: when somebody takes the eBPF programs away, a listener that was marked serves plain clients, and
// those of libsmc, at once.
func TestListenerWithoutPrograms(t *testing.T) {
	alone(t)
	d, client, server := smcPair(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l := server.Listen(overSMC, "tcp", address)
		a, b := connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		wantError(t, "rm -r", os.RemoveAll(programsDir), nil)
		waitFor(t, "the programs to go", func() error {
			if err := markFresh(d.Tag()); !errors.Is(err, smcopt.ErrNoPrograms) {
				return errors.New("they are there")
			}
			return nil
		})
		for range 5 {
			for _, how := range []sockets{plain, overSMC} {
				talkPlainly(t, client.MustDial(how, "tcp", l.Address), l.MustAccept())
			}
		}
		d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
		talkPlainlyClose(t, a, b)
		wantError(t, "Close", l.Close(), nil)
		idleHeld(t, d, client, server)
		d = mountDevice(t)
		client, server = startPeer(t, d.Point), startPeer(t, d.Point)
	}
}

// changes are how a process's device can become another one.
var changes = map[string]func(t *testing.T, d *device) *device{
	"killed and replaced": func(t *testing.T, d *device) *device {
		d.Kill()
		return mountDeviceOn(t, d.Point, "--replace")
	},
	"unmounted and mounted": func(t *testing.T, d *device) *device {
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		return mountDeviceOn(t, d.Point)
	},
}

// TestIdleOverDaemons: processes without connections, one of them without a listener either, need not hear of their daemon's end. The
// next connections are on the next daemon's device, a second later at most if there was none in between.
func TestIdleOverDaemons(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			d, client, server := smcPair(t)
			l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
			for range 3 {
				a, b := connectWhenSMC(t, client, l)
				wantSMCD(d, a, b)
				talkPlainlyClose(t, a, b)
				idleHeld(t, d, client, server)
				d = change(t, d)
				time.Sleep(moment)
			}
		})
	}
}

// TestDialsWhileDaemonDies: connections come and go while the daemon dies and comes back, over and over: each is whole, on TCP or
// SMC-D, or reset in the middle of its handshake; none hangs; nothing is left of the dead devices but a mapping each.
func TestDialsWhileDaemonDies(t *testing.T) {
	const deaths = 5
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	wantError(t, "an echo", echoOnce(client, l.Address), nil)
	idleHeld(t, d, client, server)
	held, heldServer := client.Held(), server.Held()
	storm := startStorm(client, l.Address, 4)
	for range deaths {
		time.Sleep(4 * moment)
		d.Kill()
		time.Sleep(4 * moment)
		d = mountDeviceOn(t, d.Point, "--replace")
	}
	storm.end(t)
	if whole, broken := storm.whole.Load(), storm.broken.Load(); whole < 10*broken {
		t.Errorf("%d connections were broken, %d not", broken, whole)
	}
	there := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectWhenSMC(t, client, there)
	wantSMCD(d, a, b)
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
	talkPlainlyClose(t, a, b)
	wantError(t, "Close", there.Close(), nil)
	idleHeld(t, d, client, server)
	for p, before := range map[*peer]Held{client: held, server: heldServer} {
		before.Mappings += deaths
		before.Goroutines += 2
		wantHeld(t, p, before, p.CloseIdle)
	}
}

// TestLoanAtClose: a connection that is closed while space in the peer's ring is reserved lets neither side reuse what is lent:
// the next connections are SMC-D, whoever lends.
func TestLoanAtClose(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		for round := range 6 {
			a, b := connectTo(t, client, overSMC, l)
			wantSMCD(d, a, b)
			lender := [2]*peerConn{a, b}[round%2]
			_, err := lender.do("Apps.Fill", PeerArgs{ID: lender.ID, Data: []byte("reserved")})
			wantError(t, "Reserve", err, nil)
			talkPlainlyClose(t, a, b)
			for range 3 {
				x, y := connectTo(t, client, overSMC, l)
				wantSMCD(d, x, y)
				d.wantGrowth(200<<10, func() { exchange(x, y, 100<<10) })
				talkPlainlyClose(t, x, y)
			}
			_, err = lender.do("Apps.Commit", PeerArgs{ID: lender.ID, N: 4})
			wantError(t, "Commit after Close", err, net.ErrClosed)
		}
		idleHeld(t, d, client, server)
	})
}
