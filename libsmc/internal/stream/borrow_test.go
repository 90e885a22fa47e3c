// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/ismfs/ismfs/smc"
)

// TestLending sends a stream by Reserve and Commit and receives it by Borrow and Release, in pieces of every size.
func TestLending(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		data := random(3, 1<<20)
		errs := make(chan error, 1)
		go func() { errs <- sendLent(c1, data) }()
		got, err := receiveLent(c2)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	})
}

func sendLent(c *Conn, data []byte) error {
	for n := 1; len(data) > 0; n = n*5%7919 + 1 {
		b, err := c.Reserve(n)
		if err != nil {
			return err
		}
		used := copy(b[:(len(b)+1)/2], data) // less than was reserved
		if err := c.Commit(used); err != nil {
			return err
		}
		data = data[used:]
	}
	return c.CloseWrite()
}

func receiveLent(c *Conn) (got []byte, err error) {
	for {
		b, err := c.Borrow()
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		used := (len(b) + 1) / 2
		got = append(got, b[:used]...)
		if err := c.Release(used); err != nil {
			return got, err
		}
	}
}

func TestLendingRefuses(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c1, []byte("some bytes"))
		b, err := c2.Borrow()
		if err != nil || string(b) != "some bytes" || cap(b) != len(b) {
			t.Fatalf("%q of %d, %v", b, cap(b), err)
		}
		if _, err := c2.Read(make([]byte, 1)); !errors.Is(err, ErrLent) {
			t.Errorf("Read: %v", err)
		}
		if _, err := c2.Borrow(); !errors.Is(err, ErrLent) {
			t.Errorf("Borrow: %v", err)
		}
		if err := c2.Release(len(b) + 1); err == nil {
			t.Error("more was released than borrowed")
		}
		if err := c2.Release(5); err != nil {
			t.Error(err)
		}
		if err := c2.Release(0); err == nil {
			t.Error("released twice")
		}
		mustRead(t, c2, []byte("bytes"))

		r, err := c1.Reserve(1 << 20)
		if err != nil || len(r) > ringSize-smc.CDCLen || cap(r) != len(r) {
			t.Fatalf("%d of %d, %v", len(r), cap(r), err)
		}
		if _, err := c1.Write([]byte{0}); !errors.Is(err, ErrLent) {
			t.Errorf("Write: %v", err)
		}
		if err := c1.Commit(len(r) + 1); err == nil {
			t.Error("more was committed than reserved")
		}
		if err := c1.Commit(0); err != nil {
			t.Error(err)
		}
		if _, err := c1.Reserve(0); err == nil {
			t.Error("nothing was reserved")
		}
	})
}

// What is lent stays mapped when the connection is closed, and only as long as it is lent.
func TestLendingOutlivesClose(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		mustWrite(t, c1, []byte("borrowed"))
		b, err := c2.Borrow()
		if err != nil {
			t.Fatal(err)
		}
		r, err := c2.Reserve(100)
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error, 1)
		go func() { closed <- c2.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("Close waits for what is lent")
		}
		if string(b) != "borrowed" {
			t.Errorf("borrowed bytes are %q", b)
		}
		copy(r, "lost")
		if err := c2.Release(len(b)); err != nil {
			t.Error(err)
		}
		c2.mu.Lock()
		freed := c2.freed
		c2.mu.Unlock()
		if freed {
			t.Fatal("unmapped while space is reserved")
		}
		if err := c2.Commit(4); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Commit after Close: %v", err)
		}
		c1.Close()
		waitFor(t, "the link to be given back", func() bool {
			c2.mu.Lock()
			defer c2.mu.Unlock()
			return c2.freed
		})
	})
}
