// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// TestManyConnections: 2,000 at once between two processes, each end of each checked, each moving bytes of its own.
func TestManyConnections(t *testing.T) {
	const n = 2000
	d := mountSMC(t)
	client := startPeer(t, d.Point, withEnv("SMC_RCVBUF=16k"))
	server := startPeer(t, d.Point, withEnv("SMC_RCVBUF=16k"))
	before, beforeServer := client.Held(), server.Held()
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	dialled, accepted := make([]*peerConn, n), make(map[string]*peerConn)
	accepts := later(func() (int, error) {
		for range n {
			c, err := l.Accept()
			if err != nil {
				return 0, err
			}
			accepted[c.Remote] = c
		}
		return 0, nil
	})
	inParallel(t, n, 16, func(i int) (err error) {
		dialled[i], err = client.Dial(overSMC, "tcp", l.Address)
		return errors.Join(err, dialled[i].Handshake(0))
	})
	if _, err := accepts(); err != nil {
		t.Fatal(err)
	}
	gid := d.Read("gid")
	inParallel(t, n, 16, func(i int) error {
		a := dialled[i]
		b := accepted[a.Local]
		if b == nil {
			return fmt.Errorf("%s was never accepted", a.Local)
		}
		return checkSMCD(gid, a.Info(), b.Info())
	})
	if lines := d.Conns(); len(lines) != 2*n+1 {
		t.Errorf("conns has %d lines, want %d", len(lines), 2*n+1)
	}
	if groups := d.LinkGroups(); len(groups) != 2 || groups[0][2] != fmt.Sprint(n) || groups[1][2] != fmt.Sprint(n) {
		t.Errorf("linkgroups: %v", groups)
	}
	d.wantGrowth(2*n*5000, func() {
		inParallel(t, n, 16, func(i int) error {
			a := dialled[i]
			b := accepted[a.Local]
			return errors.Join(transferChunks(a, b, 5000, 1000), transferChunks(b, a, 5000, 1000))
		})
	})
	inParallel(t, n, 16, func(i int) error {
		return errors.Join(dialled[i].Close(), accepted[dialled[i].Local].Close())
	})
	wantError(t, "Close", l.Close(), nil)
	wantNoMore(t, client, before)
	wantNoMore(t, server, beforeServer)
	d.WantCount(0)
}

// TestManyFirstConnections: all at once, and no buffer is refused because too many of them have no size yet.
func TestManyFirstConnections(t *testing.T) {
	const n = 800
	d := mountSMC(t, "--max-bytes=600M", "--max-bytes-per-uid=600M") // 36 buffers without a size
	client := startPeer(t, d.Point, withEnv("SMC_RCVBUF=16k"))
	server := startPeer(t, d.Point, withEnv("SMC_RCVBUF=16k"))
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	r, err := client.do("Sockets.Burst", PeerArgs{Network: "tcp", Address: l.Address, N: n})
	if err != nil || r.N != n {
		t.Errorf("%d of %d are SMC-D: %v", r.N, n, err)
	}
}

// inParallel calls f for 0 to n-1, so many at once, and fails the test with the first errors.
func inParallel(t *testing.T, n, atOnce int, f func(i int) error) {
	t.Helper()
	var all sync.WaitGroup
	failures := make(chan error, n)
	for w := range atOnce {
		all.Go(func() {
			for i := w; i < n; i += atOnce {
				if err := f(i); err != nil {
					failures <- fmt.Errorf("%d: %w", i, err)
				}
			}
		})
	}
	all.Wait()
	for k := 0; len(failures) > 0 && k < 5; k++ {
		t.Error(<-failures)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// wantNoMore waits until a process has no more than it had before it used SMC, but for what it keeps as a user of the device.
func wantNoMore(t *testing.T, p *peer, before Held) {
	t.Helper()
	waitFor(t, "everything to be given back", func() error {
		p.CloseIdle()
		// The procs block has a descriptor and a mapping. The poller of package net has two descriptors.
		now := p.Held()
		if now.Descriptors > before.Descriptors+4 || now.Mappings > before.Mappings+1 || now.Goroutines > before.Goroutines+1 {
			return fmt.Errorf("%+v, before %+v", now, before)
		}
		return nil
	})
}

// TestNoRoomForDMBs: where the table of DMBs is full connections are TCP, and say why; those from before do not feel it.
func TestNoRoomForDMBs(t *testing.T) {
	for _, short := range []struct {
		name    string
		server  int // how many DMBs are left when the server needs one
		client  smc.DeclineCode
		refused smc.DeclineCode
	}{
		{"for the server", 0, smc.DeclPeerDecl, smc.DeclMaxDMB},
		{"for the client", 1, smc.DeclMaxDMB, smc.DeclPeerDecl},
	} {
		t.Run(short.name, func(t *testing.T) {
			// Three connections with two DMBs each, the two doorbell pages, and what is left.
			d, client, server := smcPair(t, fmt.Sprintf("--max-dmbs=%d", 3*2+2+short.server))
			l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
			var pairs [][2]*peerConn
			for range 3 {
				a, b := connectTo(t, client, overSMC, l)
				wantSMCD(d, a, b)
				pairs = append(pairs, [2]*peerConn{a, b})
			}
			before := d.handshakes()
			const n = 5
			for range n {
				a, b := connectTo(t, client, overSMC, l)
				if short.server == 0 {
					wantTCP(a, smc.DeclPeerDecl, smc.DeclMaxDMB)
					wantTCP(b, smc.DeclMaxDMB, 0)
				} else {
					wantTCP(a, smc.DeclMaxDMB, 0)
					wantTCP(b, smc.DeclPeerDecl, smc.DeclMaxDMB)
				}
				for _, end := range []*peerConn{a, b} {
					if why := end.Info().CauseText; !strings.Contains(why, "--max-dmbs") {
						t.Errorf("the cause %q does not name --max-dmbs", why)
					}
				}
				d.wantGrowth(0, func() { exchange(a, b, 100<<10) })
				wantError(t, "Close", a.Close(), nil)
				wantError(t, "Close", b.Close(), nil)
			}
			h := d.handshakes().since(before)
			if h.ClientFallback[short.client.String()] != n || h.ServerFallback[short.refused.String()] != n {
				t.Errorf("counted %+v", h)
			}
			d.wantGrowth(3*(600<<10), func() {
				for _, p := range pairs {
					wantSMCD(d, p[0], p[1])
					exchange(p[0], p[1], 300<<10)
				}
			})
			// One that ends makes room for another.
			wantError(t, "Close", pairs[0][0].Close(), nil)
			wantError(t, "Close", pairs[0][1].Close(), nil)
			waitFor(t, "a connection to be SMC-D again", func() error {
				a, b := connectTo(t, client, overSMC, l)
				if a.Info().Mode != libsmc.SMCD {
					return errors.Join(a.Close(), b.Close(), errors.New("it is TCP"))
				}
				wantSMCD(d, a, b)
				d.wantGrowth(2000, func() { exchange(a, b, 1000) })
				return nil
			})
		})
	}
}
