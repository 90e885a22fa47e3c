// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"
)

// TestStoppedDaemon: a daemon that does not answer stops no bytes, whatever it is being asked.
func TestStoppedDaemon(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		data := random(1, 20*ringSize)
		d.cmd.Process.Signal(syscall.SIGSTOP)
		d.process.Block().Wake() // its word: all connections are asked about
		time.Sleep(50 * time.Millisecond)
		done := make(chan struct{})
		go func() {
			defer close(done)
			go c1.Write(data)
			mustRead(t, c2, data)
		}()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("bytes wait for the daemon")
		}
		d.cmd.Process.Signal(syscall.SIGCONT)
		<-done
	})
}

// TestReuseAfterLoan: while part of the peer's ring is lent out at a closed connection, neither side takes the DMBs for the next
// one; when it has come back both do.
func TestReuseAfterLoan(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		type answer struct {
			who      *Conn
			reusable bool
		}
		released := make(chan answer, 2)
		for _, c := range []*Conn{c1, c2} {
			c.mu.Lock()
			c.link.Release = func(r bool, _ uint64) { released <- answer{c, r} }
			c.mu.Unlock()
		}
		if _, err := c1.Reserve(10); err != nil {
			t.Fatal(err)
		}
		c1.Close()
		wantRead(t, c2, io.EOF)
		c2.Close()
		select {
		case a := <-released:
			t.Errorf("given back while space is reserved: the lender's %v, reusable %v", a.who == c1, a.reusable)
		case <-time.After(50 * time.Millisecond):
		}
		c1.Commit(0)
		for range 2 {
			select {
			case a := <-released:
				if !a.reusable {
					t.Errorf("not reusable: the lender's %v", a.who == c1)
				}
			case <-time.After(patience):
				t.Fatal("never given back")
			}
		}
		for _, c := range []*Conn{c1, c2} {
			errors.Join(c.link.OwnBell.Close(), c.link.PeerBell.Close(), c.link.Peer.Close(), c.link.Own.Close())
		}
	})
}
