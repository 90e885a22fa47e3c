// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/ismfs/ismfs/dmb"
)

var strategies = []Strategy{Adaptive, Busy, Blocking}

func TestNetTestOfStrategies(t *testing.T) {
	for _, s := range []Strategy{Busy, Blocking} {
		t.Run(s.String(), func(t *testing.T) {
			inModes(t, func(t *testing.T, d *daemon) {
				nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
					c1, c2, err := d.pair(2 * 4096)
					if err == nil {
						c1.link.Wait, c2.link.Wait = s, s
					}
					return c1, c2, func() { c1.Close(); c2.Close() }, err
				})
			})
		})
	}
}

// TestMixedWaiting has connections come and go, alone and in crowds, on new DMBs and on ones that are used again, with each strategy at
// each end. A wake-up that is lost ends in a deadline, or in a call that does not return.
func TestMixedWaiting(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		g := d.newGroup(t)
		end := time.Now().Add(soak(t))
		done := make(chan struct{})
		var all sync.WaitGroup
		for i := range 12 {
			pair := g.pair
			switch {
			case i == 0:
				pair = d.pair
			case i < 5:
				r := g.newReused(t)
				defer r.close()
				pair = r.pair
			}
			all.Go(func() {
				for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
					if err := oneOfMany(pair); err != nil {
						t.Errorf("worker %d, connection %d: %v", i, n, err)
					}
				}
			})
		}
		go func() { all.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Until(end) + 3*patience):
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			t.Fatal("a call does not return")
		}
	})
}

// oneOfMany is the life of a connection.
func oneOfMany(pair func(size int) (c1, c2 *Conn, err error)) error {
	c1, c2, err := pair(ringSize)
	if err != nil {
		return err
	}
	c1.link.Wait, c2.link.Wait = strategies[rand.IntN(3)], strategies[rand.IntN(3)]
	what := []struct {
		name string
		do   func(a, b *Conn) error
	}{
		{"ping-pong", playBytes}, {"stream", playStream}, {"deadline", playDeadline}, {"Close", playClose},
	}[rand.IntN(4)]
	for _, c := range []*Conn{c1, c2} {
		c.SetDeadline(time.Now().Add(patience))
	}
	if err = what.do(c1, c2); err != nil {
		err = fmt.Errorf("%s, %v and %v: %w", what.name, c1.link.Wait, c2.link.Wait, err)
	}
	return errors.Join(err, endBoth(c1, c2))
}

// endBoth closes both ends and waits for the links.
func endBoth(ends ...*Conn) error {
	for _, c := range ends {
		c.Close()
	}
	for _, c := range ends {
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			c.mu.Lock()
			freed := c.freed
			c.mu.Unlock()
			if freed {
				break
			}
			if time.Now().After(end) {
				return errors.New("the link is not given back")
			}
		}
	}
	return nil
}

func playBytes(a, b *Conn) error {
	over := make(chan error, 1)
	go func() { over <- echo(b) }()
	p := make([]byte, 1)
	for range rand.IntN(200) {
		if _, err := a.Write(p); err != nil {
			return err
		}
		dawdle()
		if _, err := a.Read(p); err != nil {
			return err
		}
	}
	a.CloseWrite()
	return <-over
}

// playStream moves many rings both ways at once.
func playStream(a, b *Conn) error {
	const size = 20 * ringSize
	over := make(chan error, 4)
	for _, c := range []*Conn{a, b} {
		go func() { _, err := c.Write(make([]byte, size)); over <- err }()
		go func() { _, err := io.ReadFull(c, make([]byte, size)); over <- err }()
	}
	return errors.Join(<-over, <-over, <-over, <-over)
}

// playDeadline lets a Read and a Write wait until their deadlines, beside the other direction's traffic.
func playDeadline(a, b *Conn) error {
	over := make(chan error, 1)
	at := time.Now().Add(time.Duration(rand.IntN(int(futexTime * 3 / 2))))
	a.SetReadDeadline(at)
	b.SetWriteDeadline(at)
	go func() { _, err := b.Write(make([]byte, 3*ringSize)); over <- err }()
	p := make([]byte, 2*ringSize)
	for range 2 {
		// The second one finds what is there, or nothing.
		if _, err := io.ReadFull(a, p); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	if err := <-over; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	a.SetReadDeadline(time.Now().Add(patience))
	b.SetWriteDeadline(time.Now().Add(patience))
	go func() { dawdle(); b.Write([]byte("x")); b.CloseWrite() }()
	_, err := io.Copy(io.Discard, a)
	return err
}

// playClose closes one end while both directions wait at both.
func playClose(a, b *Conn) error {
	over := make(chan error, 4)
	for _, c := range []*Conn{a, b} {
		go func() { _, err := io.ReadFull(c, make([]byte, 2*ringSize)); over <- err }()
		go func() { _, err := c.Write(make([]byte, ringSize/2)); over <- err }()
	}
	dawdle()
	a.Close()
	var errs error
	for range 4 {
		if err := <-over; errors.Is(err, os.ErrDeadlineExceeded) {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

// reused are two DMBs for one connection of a group after another.
type reused struct {
	g     *group
	bit   uint16
	ends  [2]endpoint
	there [2]*dmb.Attached
	bells [2]*dmb.Bell
	last  chan bool // what became of both ends of the last connection
}

func (g *group) newReused(t *testing.T) *reused {
	t.Helper()
	r := &reused{g: g, bit: uint16(g.bit.Add(2)) - 1}
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reused) open() (err error) {
	for i := range 2 {
		if r.ends[i], err = r.g.d.newEndpoint(ringSize); err != nil {
			return err
		}
		if r.there[i], err = dmb.Attach(r.g.d.dev, r.ends[i].own.Token(), ringSize); err != nil {
			return err
		}
		if r.bells[i], err = dmb.OpenBell(r.g.d.dev, r.ends[i].own.Token()); err != nil {
			return err
		}
	}
	return nil
}

// close closes what the last connection has left.
func (r *reused) close() {
	r.wait()
	for i := range 2 {
		errors.Join(r.bells[i].Close(), r.there[i].Close(), r.ends[i].bell.Close(), r.ends[i].own.Close())
	}
}

// wait waits until the last connection is over, and reports whether its DMBs can be used again.
func (r *reused) wait() bool {
	if r.last == nil {
		return true
	}
	one, two := <-r.last, <-r.last
	r.last = nil
	return one && two
}

func (r *reused) pair(int) (c1, c2 *Conn, err error) {
	if !r.wait() {
		r.close()
		if err := r.open(); err != nil {
			return nil, nil, err
		}
	}
	t1, t2, err := tcpPair()
	if err != nil {
		return nil, nil, err
	}
	last := make(chan bool, 2)
	r.last = last
	var c [2]*Conn
	for i, tcp := range []*net.TCPConn{t1, t2} {
		bit := r.bit + uint16(i)
		c[i], err = watched(Link{
			Own: r.ends[i].own, OwnBell: r.ends[i].bell, Peer: r.there[1-i], PeerBell: r.bells[1-i], TCP: tcp,
			Process: r.g.d.process, Epoch: r.ends[i].epoch, Pages: r.g.pages[i], OwnBit: bit, PeerBit: 2*r.bit + 1 - bit,
			Release: func(reusable bool, _ uint64) { last <- reusable },
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return c[0], c[1], nil
}
