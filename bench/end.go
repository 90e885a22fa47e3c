// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/ismfs/ismfs/libsmc"
)

// An end is one end of a connection as a program uses it.
type end interface {
	send(n int) error              // a message of n bytes
	receive(n int) error           // a whole message
	receiveSome() (n int, e error) // whatever is there
}

// flowRoom is the buffer of a receiver that reads whatever is there.
const flowRoom = 64 << 10

// newEnd returns how the task wants a connection to be used; room is for what receiveSome receives at once.
func (w *worker) newEnd(c net.Conn, room int) end {
	if w.Transport.ZeroCopy {
		return &lent{conn: c.(*libsmc.Conn)}
	}
	p := copied{conn: c, out: make([]byte, w.Size), in: make([]byte, max(w.Size, room))}
	if w.Touch {
		return &touched{copied: p}
	}
	return &p
}

// copied is Write and Read from and to the same memory all the time.
type copied struct {
	conn    net.Conn
	out, in []byte
}

func (p *copied) send(n int) error {
	_, err := p.conn.Write(p.out[:n])
	return err
}

func (p *copied) receive(n int) error {
	_, err := io.ReadFull(p.conn, p.in[:n])
	return err
}

func (p *copied) receiveSome() (int, error) { return p.conn.Read(p.in) }

// touched is copied by a program that makes what it sends and looks at what it receives.
type touched struct {
	copied
	sink
}

func (p *touched) send(n int) error {
	clear(p.out[:n])
	return p.copied.send(n)
}

func (p *touched) receive(n int) error {
	err := p.copied.receive(n)
	p.look(p.in[:n])
	return err
}

func (p *touched) receiveSome() (int, error) {
	n, err := p.copied.receiveSome()
	p.look(p.in[:n])
	return n, err
}

// lent is Reserve and Borrow: what is sent is made in place, what is received is looked at in place.
type lent struct {
	conn *libsmc.Conn
	sink
}

func (p *lent) send(n int) error {
	for n > 0 {
		b, err := p.conn.Reserve(n)
		if err != nil {
			return err
		}
		clear(b)
		if err := p.conn.Commit(len(b)); err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}

func (p *lent) receive(n int) error {
	for n > 0 {
		some, err := p.take(n)
		if err != nil {
			return err
		}
		n -= some
	}
	return nil
}

func (p *lent) receiveSome() (int, error) { return p.take(flowRoom) }

// take looks at up to n bytes.
func (p *lent) take(n int) (int, error) {
	b, err := p.conn.Borrow()
	if err != nil {
		return 0, err
	}
	b = b[:min(n, len(b))]
	p.look(b)
	return len(b), p.conn.Release(len(b))
}

// A sink keeps the compiler from leaving out what is read for nothing.
type sink uint64

// look reads a word of each cache line.
func (s *sink) look(b []byte) {
	var sum uint64
	for ; len(b) >= 64; b = b[64:] {
		sum += binary.NativeEndian.Uint64(b)
	}
	*s = sink(sum)
}
