// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"fmt"
)

// ErrLent is the error of a call that needs what Borrow or Reserve has given out, until Release or Commit has it back.
var ErrLent = errors.New("part of the ring is lent: Release or Commit it first")

var errNotLent = errors.New("nothing is lent, or not as much")

// Borrow waits for bytes and returns what can be read in place, up to the ring's end: at least one byte. Until [Conn.Release]
// nothing else can be read.
//
// The bytes lie in memory that the peer can still write. A program that does not trust its peer copies them before it
// decides anything by them. They stay readable until Release, also when the connection ends or is closed meanwhile.
//
// Errors are those of [Conn.Read].
func (c *Conn) Borrow() ([]byte, error) {
	b, err := c.borrow(false)
	if err != nil {
		return nil, c.opError("read", err)
	}
	return b, nil
}

// borrow lends to the program, or to a WriteTo that moves what it gets.
func (c *Conn) borrow(moving bool) ([]byte, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	n, err := c.readable(1)
	if err != nil {
		return nil, err
	}
	b := c.link.Own.Ring()[c.rx.cons.Count:]
	n = min(n, len(b))
	if moving {
		n = min(n, chunk)
	}
	c.rx.lent, c.rx.borrowed, c.reading.moving = true, n, moving
	return b[:n:n], nil
}

// Release ends a Borrow: the first n of its bytes are read. They must not be touched any more.
func (c *Conn) Release(n int) error {
	if err := c.release(n, false); err != nil {
		return c.opError("read", err)
	}
	return nil
}

func (c *Conn) release(n int, moving bool) error {
	err := c.takeBorrowed(n, moving)
	c.returned()
	return err
}

func (c *Conn) takeBorrowed(n int, moving bool) error {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if !c.rx.lent || c.reading.moving != moving || n < 0 || n > c.rx.borrowed {
		return fmt.Errorf("release of %d bytes of %d: %w", n, c.rx.borrowed, errNotLent)
	}
	c.rx.lent, c.rx.borrowed = false, 0
	c.endMove(&c.reading)
	if n > 0 {
		c.advance(uint32(n))
		c.countRead(n)
	}
	return nil
}

// Reserve waits for space and returns up to n bytes of it, n > 0, at least one: what is written there and committed is sent.
// Where the peer's DMB is mapped (dmb_copy 0) it is the peer's ring up to its end, and the peer can see and change what is
// written before it is committed; what it holds at first means nothing. Else it is a buffer of the connection's own, which
// [Conn.Commit] copies. Until Commit nothing else can be written.
//
// The bytes stay writable until Commit, also when the connection ends or is closed meanwhile; what is then committed is lost,
// and Commit says so.
//
// Errors are those of [Conn.Write].
func (c *Conn) Reserve(n int) ([]byte, error) {
	b, err := c.reserve(n, false)
	if err != nil {
		return nil, c.opError("write", err)
	}
	return b, nil
}

// reserve lends to the program, or to a ReadFrom that moves what it gets.
func (c *Conn) reserve(n int, moving bool) ([]byte, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if n <= 0 {
		return nil, fmt.Errorf("reserve of %d bytes: %w", n, errNotLent)
	}
	space, err := c.writable(1)
	if err != nil {
		return nil, err
	}
	b := c.room()
	n = min(n, space, len(b))
	c.tx.lent, c.tx.reserved, c.writing.moving = true, n, moving
	return b[:n:n], nil
}

// room returns where reserved bytes go.
func (c *Conn) room() []byte {
	if !c.copied {
		return c.link.Peer.Ring()[c.tx.prod.Count:]
	}
	if c.tx.buffer == nil {
		c.tx.buffer = make([]byte, min(chunk, int(c.txLen)))
	}
	return c.tx.buffer
}

// Commit ends a Reserve: the first n of its bytes are sent; 0 sends nothing. They must not be touched any more.
func (c *Conn) Commit(n int) error {
	if err := c.commit(n, false); err != nil {
		return c.opError("write", err)
	}
	return nil
}

func (c *Conn) commit(n int, moving bool) error {
	err := c.takeReserved(n, moving)
	c.returned()
	return err
}

func (c *Conn) takeReserved(n int, moving bool) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if !c.tx.lent || c.writing.moving != moving || n < 0 || n > c.tx.reserved {
		return fmt.Errorf("commit of %d bytes of %d: %w", n, c.tx.reserved, errNotLent)
	}
	c.tx.lent, c.tx.reserved = false, 0
	c.endMove(&c.writing)
	if n == 0 {
		return nil
	}
	if c.closed.Load() {
		return c.refused(&c.writing)
	}
	if c.writing.stop.Load() {
		return c.writeError()
	}
	if c.copied {
		if err := c.put(c.tx.buffer[:n]); err != nil {
			return err
		}
	}
	c.advanceProducer(uint32(n))
	c.countWrite(n, n)
	return nil
}
