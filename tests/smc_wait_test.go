// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"fmt"
	"net/rpc"
	"testing"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/tree"
)

// How a side waits shows in its peer: one that never sleeps is never woken (Info.WakeUps), one that sleeps is, sooner or later.

func init() { rpc.Register(Waiters{}) }

// Waiters are calls of the child that say how a connection waits: PeerArgs.N is a libsmc.Wait.
type Waiters struct{}

func (Waiters) Dial(a PeerArgs, r *PeerReply) error {
	c, err := (&libsmc.Dialer{Wait: libsmc.Wait(a.N)}).Dial("tcp", a.Address)
	if err == nil {
		keep(c, r)
	}
	return r.answer(err)
}

func (Waiters) Listen(a PeerArgs, r *PeerReply) error {
	l, err := (&libsmc.ListenConfig{Wait: libsmc.Wait(a.N)}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err == nil {
		keepListener(l, r)
	}
	return r.answer(err)
}

// wantSleeps fails the test unless from has to wake to, or, if it never sleeps, never has to.
func wantSleeps(t *testing.T, from, to *peerConn, sleeps bool) {
	t.Helper()
	exchange := func() error {
		got := later(func() ([]byte, error) { return to.Read(1) })
		_, err := from.Write([]byte("x"))
		text, errRead := got()
		if err != nil || errRead != nil || string(text) != "x" {
			t.Fatalf("%q, %v, %v", text, err, errRead)
		}
		if from.Info().WakeUps == 0 {
			return fmt.Errorf("nobody was woken")
		}
		return nil
	}
	if sleeps {
		waitFor(t, "a wake-up", exchange)
		return
	}
	for range 50 {
		if exchange() == nil {
			t.Fatal("a side that never sleeps was woken")
		}
	}
}

func TestMountBoundsWaiting(t *testing.T) {
	for _, row := range []struct {
		mount      []string
		busy, spin bool
		program    string // SMC_WAIT
		sleeps     bool
	}{
		{nil, true, true, "busy", false},
		{nil, true, true, "blocking", true},
		{[]string{"--wait=busy"}, true, true, "", true},
		{[]string{"--wait=busy"}, true, true, "nonsense", true}, // as adaptive
		{[]string{"--wait=adaptive"}, false, true, "busy", true},
		{[]string{"-o", "wait=blocking"}, false, false, "busy", true},
	} {
		t.Run(fmt.Sprintf("%q, %q", row.mount, row.program), func(t *testing.T) {
			d := mountSMC(t, row.mount...)
			dev, err := tree.Find(d.Point)
			if err != nil {
				t.Fatal(err)
			}
			block, err := dmb.OpenBlock(dev, 4096)
			if err != nil {
				t.Fatal(err)
			}
			busy, spin := block.Waiting()
			block.Close()
			if busy != row.busy || spin != row.spin {
				t.Errorf("the block lets programs be busy: %v, spin: %v", busy, spin)
			}
			client, server := startPeer(t, d.Point, withEnv("SMC_WAIT="+row.program)), startPeer(t, d.Point)
			a, b := connect(t, client, overSMC, server, overSMC)
			wantSMCD(d, a, b)
			wantSleeps(t, b, a, row.sleeps)
		})
	}
}

// What a program says counts more than SMC_WAIT.
func TestProgramsWait(t *testing.T) {
	d := mountSMC(t)
	client, server := startPeer(t, d.Point, withEnv("SMC_WAIT=busy")), startPeer(t, d.Point, withEnv("SMC_WAIT=blocking"))
	for _, row := range []struct {
		dialled, accepted          libsmc.Wait
		clientSleeps, serverSleeps bool
	}{
		{libsmc.WaitDefault, libsmc.WaitDefault, false, true},
		{libsmc.WaitBlocking, libsmc.WaitBusy, true, false},
		{libsmc.WaitAdaptive, libsmc.WaitAdaptive, true, true},
	} {
		t.Run(fmt.Sprint(row.dialled, row.accepted), func(t *testing.T) {
			r := server.mustDo("Waiters.Listen", PeerArgs{N: int64(row.accepted)})
			l := &peerListener{server, r.ID, r.Local}
			defer l.Close()
			a := client.newConn(client.mustDo("Waiters.Dial", PeerArgs{Address: l.Address, N: int64(row.dialled)}))
			b := l.MustAccept()
			wantError(t, "handshake", a.Handshake(0), nil)
			wantSMCD(d, a, b)
			wantSleeps(t, b, a, row.clientSleeps)
			wantSleeps(t, a, b, row.serverSleeps)
			a.Close()
			b.Close()
		})
	}
}

func TestWrongWait(t *testing.T) {
	point := tempDir(t)
	for _, args := range [][]string{{"--wait=never"}, {"--wait=Busy"}, {"-o", "wait=never"}, {"--wait="}} {
		execute(t, nil, "ismfs", append([]string{"mount", point}, args...)...).want(t, 2, "wait", "busy, adaptive or blocking")
	}
	execute(t, nil, "ismfs", "mount", point, "-o", "wait").want(t, 2, `"wait" needs a value`)
}
