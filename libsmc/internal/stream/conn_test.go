// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

const ringSize = 16 << 10

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// random returns n bytes that a seed determines.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func mustWrite(t testing.TB, c *Conn, p []byte) {
	t.Helper()
	if n, err := c.Write(p); n != len(p) || err != nil {
		t.Fatalf("Write of %d bytes: %d, %v", len(p), n, err)
	}
}

func mustRead(t testing.TB, c *Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("reading %d bytes: %v", len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes that were not sent", len(want))
	}
}

// wantRead reads one byte and fails the test unless that gives an error that is err.
func wantRead(t testing.TB, c *Conn, err error) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if n, got := c.Read(make([]byte, 1)); n != 0 || !errors.Is(got, err) {
		t.Fatalf("Read: %d, %v; want 0, %v", n, got, err)
	}
}

// wantWrite writes until there is an error, which has to be err.
func wantWrite(t testing.TB, c *Conn, err error) {
	t.Helper()
	c.SetWriteDeadline(time.Now().Add(patience))
	for {
		if _, got := c.Write([]byte{0}); got != nil {
			if !errors.Is(got, err) {
				t.Fatalf("Write: %v; want %v", got, err)
			}
			return
		}
	}
}

// TestWrap sends pieces of all sizes through a ring that they pass again and again, so that every place is a first and a
// last one.
func TestWrap(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, 8192)
		ring := 8192 - smc.CDCLen
		sent := random(1, 3*ring)
		for n := 1; n <= ring; n += 1 + n/7 {
			for range 3 {
				go c1.Write(sent[n : 2*n]) // waits where a cursor is held back
				mustRead(t, c2, sent[n:2*n])
			}
		}
	})
}

func TestTransferCountsExactly(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		before, err := d.dev.XferBytes()
		if err != nil {
			t.Fatal(err)
		}
		const total = 1<<20 + 12345
		data := random(2, total)
		errs := make(chan error, 1)
		go func() {
			_, err := c1.Write(data)
			errs <- err
		}()
		mustRead(t, c2, data)
		after, err := d.dev.XferBytes() // before Write has returned: bytes are counted before they can be read
		if err != nil || after-before != total {
			t.Fatalf("xfer_bytes grew by %d, %v; want %d", after-before, err, total)
		}
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	})
}

func TestCounters(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		count := func(c dmb.Counter) uint64 {
			return *counterAt(d.process.Block(), c)
		}
		full := dmb.TxFull
		if d.copy == tree.Separated {
			full = dmb.TxFullPeer
		}
		watched := []dmb.Counter{
			dmb.TxCount, dmb.UsrTxBuf.Sized(100), dmb.UsrTxBuf.Sized(20 << 10), dmb.TxSizeSmallPeer, full, dmb.RxFull,
		}
		before := make([]uint64, len(watched))
		for i, c := range watched {
			before[i] = count(c)
		}
		done := make(chan struct{})
		go func() { c1.Write(make([]byte, 20<<10)); close(done) }()
		waitFor(t, "a full ring", func() bool {
			return c2.link.Own.Producer() == smc.ProducerWord(smc.Cursor{Wrap: 1})
		})
		mustRead(t, c2, make([]byte, 20<<10))
		<-done
		mustWrite(t, c1, make([]byte, 100))
		mustRead(t, c2, make([]byte, 100))
		for i, want := range []uint64{2, 1, 1, 1, 1, 1} {
			if got := count(watched[i]) - before[i]; got != want {
				t.Errorf("counter %d grew by %d, want %d", watched[i], got, want)
			}
		}
	})
}

func TestHalfClose(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c1, []byte("request"))
		if err := c1.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		wantWrite(t, c1, syscall.EPIPE)
		got, err := io.ReadAll(c2)
		if string(got) != "request" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if s := c2.State(); s != smc.AppCloseWait1 {
			t.Errorf("state %v after the peer's end", s)
		}
		mustWrite(t, c2, []byte("reply"))
		c2.Close()
		got, err = io.ReadAll(c1)
		if string(got) != "reply" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

// A Write that waits for space ends when its own side stops writing.
func TestCloseWriteWakesWriter(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		errs := make(chan error, 1)
		go func() {
			_, err := c1.Write(make([]byte, 1<<20))
			errs <- err
		}()
		time.Sleep(20 * time.Millisecond)
		if err := c1.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("Write: %v", err)
		}
		if n, err := io.Copy(io.Discard, c2); n != ringSize-smc.CDCLen || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	})
}

func TestCloseRead(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		errs := make(chan error, 1)
		go func() {
			_, err := c1.Read(make([]byte, 1))
			errs <- err
		}()
		time.Sleep(20 * time.Millisecond)
		if err := c1.CloseRead(); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; err != io.EOF {
			t.Fatalf("Read: %v", err)
		}
		mustWrite(t, c1, []byte("still"))
		mustRead(t, c2, []byte("still"))
	})
}

func TestCloseWithUnreadResets(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c1, []byte("unread"))
		mustWrite(t, c2, []byte("last words"))
		c2.Close()
		mustRead(t, c1, []byte("last words")) // what arrived comes first
		wantRead(t, c1, syscall.ECONNRESET)
		wantWrite(t, c1, syscall.ECONNRESET)
	})
}

func TestLingerZeroResets(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c2, []byte("last words"))
		c2.SetLinger(0)
		c2.Close()
		mustRead(t, c1, []byte("last words"))
		wantRead(t, c1, syscall.ECONNRESET)
	})
}

func TestClose(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		errs := make(chan error, 2)
		go func() { _, err := c1.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := c1.Write(make([]byte, 1<<20)); errs <- err }()
		time.Sleep(20 * time.Millisecond)
		if err := c1.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a call that waited: %v", err)
			}
		}
		if err := c1.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		for name, err := range map[string]error{
			"CloseRead": c1.CloseRead(), "CloseWrite": c1.CloseWrite(), "SetLinger": c1.SetLinger(1),
			"SetDeadline": c1.SetDeadline(time.Now()), "Release": c1.Release(0),
		} {
			if err == nil {
				t.Errorf("%s after Close: no error", name)
			}
		}
		wantRead(t, c1, net.ErrClosed)
		wantWrite(t, c1, net.ErrClosed)
		if n, err := io.Copy(io.Discard, c2); n != ringSize-smc.CDCLen || err != nil {
			t.Errorf("the peer read %d bytes, %v", n, err)
		}
		wantWrite(t, c2, syscall.ECONNRESET)
	})
}

// The end of the TCP connection is the peer's death, unless the peer said more.
func TestPeerGone(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for _, test := range []struct {
			name   string
			sent   int // bytes that the peer has not read
			err    error
			reads  error
			writes error
		}{
			{"FIN", 0, io.EOF, io.EOF, syscall.ECONNRESET},
			{"FIN with bytes unconfirmed", 100, io.EOF, syscall.ECONNRESET, syscall.ECONNRESET},
			{"RST", 0, syscall.ECONNRESET, syscall.ECONNRESET, syscall.ECONNRESET},
		} {
			t.Run(test.name, func(t *testing.T) {
				c1, c2 := d.mustPair(t, ringSize)
				mustWrite(t, c2, []byte("last words"))
				if test.sent > 0 {
					mustWrite(t, c1, make([]byte, test.sent))
				}
				if test.err != io.EOF {
					c2.link.TCP.SetLinger(0)
				}
				c2.link.TCP.Close()
				waitFor(t, "the end of TCP", func() bool {
					c1.mu.Lock()
					defer c1.mu.Unlock()
					return c1.tcpEnded
				})
				mustRead(t, c1, []byte("last words"))
				wantRead(t, c1, test.reads)
				wantWrite(t, c1, test.writes)
			})
		}
	})
}

// A peer that lets go of its DMB without a word is noticed through the device.
func TestPeerVanishes(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		errs := make(chan error, 1)
		go func() { _, err := c1.Read(make([]byte, 1)); errs <- err }()
		time.Sleep(20 * time.Millisecond)
		c2.closed.Store(true)
		c2.finished, c2.tcpEnded = true, true // nobody is told
		if err := c2.freeIfUnused(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-errs:
			if err != io.EOF {
				t.Fatalf("Read: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("not noticed")
		}
		c2.link.Process.remove(c2)
		c2.link.TCP.Close()
	})
}

func TestInactive(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c2, []byte("last words"))
		errs := make(chan error, 2)
		go func() { _, err := c2.Read(make([]byte, 1)); errs <- err }()
		go func() { _, err := c1.Write(make([]byte, 1<<20)); errs <- err }()
		e, err := d.newEndpoint(ringSize)
		if err != nil {
			t.Fatal(err)
		}
		defer e.own.Close()
		defer e.bell.Close()
		if err := d.dev.SetActive(tree.Inactive); err != nil {
			t.Fatal(err)
		}
		defer d.dev.SetActive(tree.Active)
		for range 2 {
			select {
			case err := <-errs:
				if err != nil && !errors.Is(err, syscall.ECONNABORTED) {
					t.Errorf("a call that waited: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("a call still waits")
			}
		}
		mustRead(t, c1, []byte("last words"))
		wantRead(t, c1, syscall.ECONNABORTED)
		wantWrite(t, c1, syscall.ECONNABORTED)
		if _, err := New(Link{
			Own: e.own, Peer: c1.link.Peer, OwnBell: e.bell, TCP: c1.link.TCP, Process: d.process, Epoch: e.epoch,
		}); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("New after the device was switched off: %v", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c2, []byte("x"))
		c1.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := c1.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read with bytes there, after the deadline: %v", err)
		}
		c1.SetReadDeadline(time.Time{})
		mustRead(t, c1, []byte("x"))

		began := time.Now()
		c1.SetDeadline(began.Add(100 * time.Millisecond)) // longer than a sleep on the futex
		_, err := c1.Read(make([]byte, 1))
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) < 100*time.Millisecond {
			t.Errorf("Read: %v after %v", err, time.Since(began))
		}
		n, err := c1.Write(make([]byte, ringSize))
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %d, %v", n, err)
		}
		c1.SetDeadline(time.Now().Add(50 * time.Millisecond))
		n, err = c1.Write(make([]byte, ringSize))
		if n != ringSize-smc.CDCLen || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write of more than fits: %d, %v", n, err)
		}
		// Nothing waits any more, so nobody may ask for a cursor.
		if c2.peerFlags()&smc.WriteBlocked != 0 {
			t.Error("write_blocked is set after the Write has failed")
		}
	})
}

// A cursor that the rule holds back is published by a side that sleeps, whether its peer said before or says meanwhile that
// it waits for space: a peer that needs more than a few bytes at once would stall else.
func TestPublishBeforeSleep(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for _, first := range []bool{true, false} {
			c1, c2 := d.mustPair(t, ringSize)
			block := func() {
				c1.wmu.Lock()
				c1.setWriteBlocked(true)
				c1.wmu.Unlock()
			}
			mustWrite(t, c1, make([]byte, 1000))
			if first {
				block()
			}
			mustRead(t, c2, make([]byte, 1000))
			confirmed := func() bool {
				cons, _, _ := smc.ParseConsumerWord(c1.link.Own.Consumer())
				return cons.Count == 1000
			}
			if confirmed() {
				t.Fatal("the rule should hold the cursor back")
			}
			go c2.Read(make([]byte, 1))
			waitFor(t, "the sleep", func() bool { return c1.link.Own.Waiting(dmb.Reader) != dmb.Awake })
			if !first {
				block()
			}
			waitFor(t, "the cursor", confirmed)
		}
	})
}

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// Large DMBs are mapped at huge page boundaries; both kinds of memory work.
func TestLargeDMB(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for _, kind := range []tree.DMBType{tree.PhysContiguous, tree.VirtContiguous} {
			if err := d.dev.SetDMBType(kind); err != nil {
				t.Fatal(err)
			}
			defer d.dev.SetDMBType(tree.PhysContiguous)
			c1, c2 := d.mustPair(t, 4<<20)
			data := random(4, 9<<20)
			go c1.Write(data)
			mustRead(t, c2, data)
		}
	})
}
