// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/ismfs/ismfs/dmb"
)

// A group is a link group of this process with itself: both ends' pages, and bits.
type group struct {
	d     *daemon
	ends  [2]endpoint
	there [2]*dmb.Attached
	bells [2]*dmb.Bell
	pages [2]*Pages
	bit   atomic.Int32
}

func (d *daemon) newGroup(t testing.TB) *group {
	t.Helper()
	g := &group{d: d}
	for i := range 2 {
		var err error
		if g.ends[i], err = d.newEndpoint(dmb.PageSize); err != nil {
			t.Fatal(err)
		}
		if g.there[i], err = dmb.Attach(d.dev, g.ends[i].own.Token(), dmb.PageSize); err != nil {
			t.Fatal(err)
		}
		if g.bells[i], err = dmb.OpenBell(d.dev, g.ends[i].own.Token()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		g.pages[i] = NewPages(g.ends[i].own, g.ends[i].bell, g.there[1-i], g.bells[1-i])
	}
	t.Cleanup(g.close)
	return g
}

func (g *group) close() {
	if g.pages[0] == nil {
		return // closed by the test
	}
	for i := range 2 {
		g.pages[i].Close()
	}
	for i := range 2 {
		errors.Join(g.bells[i].Close(), g.there[i].Close(), g.ends[i].bell.Close(), g.ends[i].own.Close())
	}
}

// pair returns a connection of the group. The second end's bit is another one than the first's.
func (g *group) pair(size int) (c1, c2 *Conn, err error) {
	t1, t2, err := tcpPair()
	if err != nil {
		return nil, nil, err
	}
	var ends [2]endpoint
	for i := range ends {
		if ends[i], err = g.d.newEndpoint(size); err != nil {
			return nil, nil, err
		}
	}
	bit := uint16(g.bit.Add(2)) - 1
	if c1, err = g.d.joinWith(ends[0], ends[1].own.Token(), size, t1, Link{Pages: g.pages[0], OwnBit: bit, PeerBit: bit + 1}); err != nil {
		return nil, nil, err
	}
	c2, err = g.d.joinWith(ends[1], ends[0].own.Token(), size, t2, Link{Pages: g.pages[1], OwnBit: bit + 1, PeerBit: bit})
	return c1, c2, err
}

// crowd makes every connection of the group wait as one of many does.
func (g *group) crowd() {
	for _, p := range g.pages {
		p.alone = 0
	}
}

// endPair closes both ends and waits until they are given back.
func endPair(t testing.TB, ends ...*Conn) {
	for _, c := range ends {
		c.Close()
	}
	for _, c := range ends {
		waitFor(t, "the link to be given back", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.freed
		})
	}
}

func TestNetTestOnPages(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		g := d.newGroup(t)
		g.crowd()
		nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
			c1, c2, err := g.pair(2 * 4096)
			return c1, c2, func() { endPair(t, c1, c2) }, err
		})
	})
}

// talk runs f for so many connections of the group at once, each with a peer that echoes.
func (g *group) talk(t *testing.T, n int, f func(c1, c2 *Conn)) {
	t.Helper()
	var all sync.WaitGroup
	for range n {
		c1, c2, err := g.pair(ringSize)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() { echo(c2) })
		all.Go(func() {
			defer endPair(t, c1, c2)
			f(c1, c2)
		})
	}
	all.Wait()
}

// TestPagesLoseNoWakeUp plays one byte back and forth on several connections at once. A lost wake-up ends in the deadline.
func TestPagesLoseNoWakeUp(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		g := d.newGroup(t)
		var used atomic.Int64
		g.talk(t, 8, func(c1, c2 *Conn) {
			b := make([]byte, 1)
			for end := time.Now().Add(soak(t)); time.Now().Before(end); {
				c1.SetDeadline(time.Now().Add(patience))
				if _, err := c1.Write(b); err != nil {
					t.Error(err)
					return
				}
				dawdle()
				if _, err := c1.Read(b); err != nil {
					t.Error(err)
					return
				}
				if c2.reading.noted.Load() == uint32(dmb.OnPage) {
					used.Add(1)
				}
			}
		})
		if used.Load() == 0 {
			t.Error("nobody slept on the page")
		}
		t.Logf("seen asleep on the page %d times", used.Load())
	})
}

// Whatever a peer writes into a page, its connections work, and the dispatcher ends.
func TestHostilePage(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		g := d.newGroup(t)
		g.crowd()
		c1, c2, err := g.pair(ringSize)
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan struct{})
		var storm sync.WaitGroup
		storm.Go(func() {
			page := g.there[0].Page()
			for bit := uint16(0); ; bit++ {
				select {
				case <-over:
					return
				default:
				}
				page.Set(bit % PageBits)
				page.SetWaiting(dmb.Wait(bit))
				page.Wake()
				g.bells[0].Ring()
			}
		})
		for i := range 200 {
			go func() { c2.Write([]byte{byte(i)}) }()
			c1.SetReadDeadline(time.Now().Add(patience))
			mustRead(t, c1, []byte{byte(i)})
		}
		endPair(t, c1, c2)
		close(over)
		storm.Wait()
	})
}

// A dispatcher that nobody needs takes no bits: a peer that sets them without end would keep it, and the end of the group, for ever.
func TestDispatcherEndsWithItsSleepers(t *testing.T) {
	d := daemons[0].started(t)
	for name, needless := range map[string]func(p *Pages){
		"nobody sleeps": func(p *Pages) {},
		"closed":        func(p *Pages) { p.sleepers.Add(1); p.closing.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			g := d.newGroup(t)
			p := g.pages[0]
			p.words.Store(1)
			needless(p)
			g.there[0].Page().Set(1)
			p.running = true
			p.ended.Add(1)
			p.dispatch()
			if p.running || p.own.Take(0) == 0 {
				t.Error("it has looked at the bits")
			}
		})
	}
}

// A peer that says it sleeps on a page that is not there is rung, and a bit outside the page is not used.
func TestPageThatIsNotThere(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		victim, peer := d.mustPair(t, ringSize)
		peer.link.Peer.StoreWaiting(dmb.Reader, dmb.OnPage)
		peer.bell.bell.Drain()
		mustWrite(t, victim, []byte("x"))
		if !peer.bell.bell.Drain() {
			t.Error("not rung")
		}
		g := d.newGroup(t)
		for _, bits := range [][2]uint16{{0, 1}, {1, 0}, {1, PageBits}, {1, 65535}} {
			if g.pages[0].Usable(bits[0], bits[1]) {
				t.Errorf("bits %v can be used", bits)
			}
		}
	})
}

// TestReuse uses the same two DMBs for one connection after another, whichever way they end.
func TestReuse(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		g := d.newGroup(t)
		g.crowd()
		var ends [2]endpoint
		var there [2]*dmb.Attached
		var bells [2]*dmb.Bell
		for i := range 2 {
			var err error
			if ends[i], err = d.newEndpoint(ringSize); err != nil {
				t.Fatal(err)
			}
			if there[i], err = dmb.Attach(d.dev, ends[i].own.Token(), ringSize); err != nil {
				t.Fatal(err)
			}
			if bells[i], err = dmb.OpenBell(d.dev, ends[i].own.Token()); err != nil {
				t.Fatal(err)
			}
		}
		for round := range 20 {
			t1, t2, err := tcpPair()
			if err != nil {
				t.Fatal(err)
			}
			var c [2]*Conn
			released := make(chan bool, 2)
			for i, tcp := range []*net.TCPConn{t1, t2} {
				c[i], err = watched(Link{
					Own: ends[i].own, OwnBell: ends[i].bell, Peer: there[1-i], PeerBell: bells[1-i], TCP: tcp, Process: d.process,
					Epoch: ends[i].epoch, Pages: g.pages[i], OwnBit: 100, PeerBit: 100, Release: func(r bool, _ uint64) { released <- r },
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			data := random(uint64(round), 3*ringSize)
			go func() { c[0].Write(data); c[0].CloseWrite() }()
			mustRead(t, c[1], data)
			wantRead(t, c[1], io.EOF)
			c[round%2].Close()
			c[1-round%2].Close()
			for range 2 {
				if !<-released {
					t.Fatalf("round %d: not reusable", round)
				}
			}
			for i := range 2 {
				own := ends[i].own
				if own.Producer() != 0 || own.Consumer() != 0 || own.Waiting(dmb.Reader) != 0 || own.Waiting(dmb.Writer) != 0 {
					t.Errorf("round %d: the header is not zero", round)
				}
				for _, b := range own.Ring() {
					if b != 0 {
						t.Fatalf("round %d: the ring is not zero", round)
					}
				}
			}
		}
		for i := range 2 {
			errors.Join(bells[i].Close(), there[i].Close(), ends[i].bell.Close(), ends[i].own.Close())
		}
	})
}

// What ends otherwise than by both sides' last words is not reused.
func TestNoReuse(t *testing.T) {
	old := closeTime
	defer func() { closeTime = old }()
	closeTime = 100 * time.Millisecond
	var late sync.WaitGroup
	defer late.Wait()
	inModes(t, func(t *testing.T, d *daemon) {
		for name, end := range map[string]func(c1, c2 *Conn){
			"bytes unread":       func(c1, c2 *Conn) { mustWrite(t, c2, []byte("x")); c1.Close(); c2.Close() },
			"fault":              func(c1, c2 *Conn) { c1.fail(errBytes); c1.Close(); c2.Close() },
			"killed":             func(c1, c2 *Conn) { c1.kill(); c1.Close(); c2.Close() },
			"killed after Close": func(c1, c2 *Conn) { c1.Close(); c1.kill(); c2.Close() },
			"bytes on TCP":       func(c1, c2 *Conn) { c2.link.TCP.Write([]byte("x")); wantRead(t, c1, errBytes); c1.Close(); c2.Close() },
			"lent by the peer": func(c1, c2 *Conn) {
				c2.Reserve(1)
				c2.Close()
				c1.Close()
				after := 3 * closeTime
				late.Go(func() {
					time.Sleep(after)
					c2.Commit(0)
				})
			},
			"peer never closes": func(c1, c2 *Conn) { c1.Close() },
			"TCP ends":          func(c1, c2 *Conn) { c2.link.TCP.Close(); wantRead(t, c1, io.EOF); c1.Close() },
		} {
			t.Run(name, func(t *testing.T) {
				c1, c2 := d.mustPair(t, ringSize)
				released := make(chan bool, 1)
				c1.mu.Lock()
				c1.link.Release = func(r bool, _ uint64) { released <- r }
				c1.mu.Unlock()
				end(c1, c2)
				select {
				case reusable := <-released:
					if reusable {
						t.Error("reusable")
					}
				case <-time.After(patience):
					t.Error("never given back")
				}
				l := &c1.link
				errors.Join(l.OwnBell.Close(), l.PeerBell.Close(), l.Peer.Close(), l.Own.Close())
			})
		}
	})
}

func TestPagesLeakNothing(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		before := holds(t, d)
		for range 10 {
			g := d.newGroup(t)
			var ends []*Conn
			for range 4 {
				c1, c2, err := g.pair(ringSize)
				if err != nil {
					t.Fatal(err)
				}
				ends = append(ends, c1, c2)
			}
			for _, c := range ends {
				go c.Read(make([]byte, 1))
				go c.Write(make([]byte, 2*ringSize))
			}
			time.Sleep(2 * time.Millisecond)
			endPair(t, ends...)
			g.close()
			g.pages = [2]*Pages{}
		}
		wantHeld(t, d, before)
	})
}
