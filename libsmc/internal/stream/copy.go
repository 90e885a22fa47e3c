// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"io"
	"sync"
)

var errCount = errors.New("a count of bytes that cannot be")

// ReadFrom writes what it reads from r, until io.EOF. Where the peer's DMB is mapped (dmb_copy 0) r reads straight into the
// peer's ring, and the peer can see the bytes before they are sent; it is asked only when there is space.
//
// Other writes come between two reads of r. Close and CloseWrite do not wait for r; what it reads afterwards is lost.
//
// Errors are those of [Conn.Write], and r's.
func (c *Conn) ReadFrom(r io.Reader) (total int64, err error) {
	if c.copied {
		return c.readFromCopied(r)
	}
	for {
		n, err := c.readPiece(r)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// readPiece asks r once, and returns how many bytes were sent.
func (c *Conn) readPiece(r io.Reader) (sent int, err error) {
	b, err := c.reserve(chunk, true)
	if err != nil {
		return 0, c.opError("readfrom", err)
	}
	n := 0
	defer func() { // also when r panics
		if cerr := c.commit(n, true); cerr != nil {
			sent, err = 0, c.opError("readfrom", cerr)
		}
	}()
	n, err = r.Read(b)
	if n < 0 || n > len(b) {
		n, err = 0, errCount
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// readFromCopied goes through a buffer, since the peer's ring is written by a system call.
func (c *Conn) readFromCopied(r io.Reader) (total int64, err error) {
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	for {
		n, rerr := r.Read(buf[:])
		if n > 0 {
			written, err := c.Write(buf[:n])
			total += int64(written)
			if err != nil {
				return total, err
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// WriteTo writes what it reads to w, straight from the ring, until io.EOF. w gets memory that the peer can still change: one
// that looks at a byte twice may see two. What w did not take stays to be read.
//
// Other reads come between two writes of w. Close does not wait for w.
//
// Errors are those of [Conn.Read], and w's.
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	for {
		n, err := c.writePiece(w)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// An ended connection gives io.EOF; one that w returns is another error.
var errWriterEOF = errors.New("the writer returned EOF")

// writePiece gives w what there is, and returns how much it took.
func (c *Conn) writePiece(w io.Writer) (n int, err error) {
	b, err := c.borrow(true)
	if err != nil {
		return 0, c.opError("writeto", err)
	}
	defer func() { // also when w panics
		if rerr := c.release(n, true); err == nil && rerr != nil {
			err = c.opError("writeto", rerr)
		}
	}()
	n, err = w.Write(b)
	switch {
	case n < 0 || n > len(b):
		n, err = 0, errCount
	case err == io.EOF:
		err = errWriterEOF
	case err == nil && n < len(b):
		err = io.ErrShortWrite
	}
	return n, err
}

// turn waits while a ReadFrom or WriteTo has part of the ring. Under lock, the direction's, which it lets go meanwhile.
func (c *Conn) turn(e *end, lock *sync.Mutex) error {
	for e.moving {
		c.mu.Lock()
		if e.turns == nil {
			e.turns = make(chan struct{})
		}
		turns := e.turns
		c.mu.Unlock()
		if err := c.refused(e); err != nil { // after turns was taken: what comes later closes it
			return err
		}
		if e == &c.writing && e.stop.Load() {
			return c.writeError()
		}
		lock.Unlock()
		<-turns
		lock.Lock()
	}
	return nil
}

// endMove lets those go on who wait in turn. Under the direction's lock.
func (c *Conn) endMove(e *end) {
	if !e.moving {
		return
	}
	e.moving = false
	c.mu.Lock()
	e.wakeTurnsLocked()
	c.mu.Unlock()
}

func (e *end) wakeTurnsLocked() {
	if e.turns != nil {
		close(e.turns)
		e.turns = nil
	}
}
