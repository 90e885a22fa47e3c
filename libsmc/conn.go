// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc/internal/link"
	"github.com/ismfs/ismfs/libsmc/internal/stream"
	"github.com/ismfs/ismfs/procs"
)

// A Conn is a stream connection, over shared buffers or over TCP; [Conn.Info] tells. It is a net.Conn, and all its methods
// may be called by several goroutines at once.
//
// What Dial returns may not be settled yet. Then Read, Write and the other calls that move bytes wait until the peer has
// answered the handshake; deadlines and Close end that wait.
type Conn struct {
	tcp  *net.TCPConn
	role procs.Role

	// What carries the bytes, once the handshake has settled it: one of the two.
	smc   atomic.Pointer[stream.Conn]
	plain atomic.Pointer[net.TCPConn]

	settled chan struct{} // closed when mode or err stand

	mu        sync.Mutex
	err       error // the handshake failed for good
	closing   bool
	awaiting  bool          // the server's handshake waits for a message
	givenUp   bool          // and is not to wait any more
	moved     chan struct{} // closed, and made anew, when a deadline moves before the handshake is settled
	deadlines [2]time.Time  // by readDeadline, writeDeadline
	options   options       // buffer: also what SetReadBuffer asked for
	linger    *int
	info      Info
	device    *link.Device
	slot      *dmb.Slot // describes a connection that fell back; in SMC-D mode it is the stream's
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
	_ syscall.Conn  = (*Conn)(nil)
)

func newConn(tcp *net.TCPConn, role procs.Role, o options) *Conn {
	return &Conn{
		tcp: tcp, role: role, options: o, settled: make(chan struct{}), moved: make(chan struct{}),
		info: Info{Client: role == procs.Client},
	}
}

// opError makes an error look as those of package net do.
func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if _, ok := err.(*net.OpError); ok {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read reads bytes. See [net.Conn]; in SMC-D mode ECONNABORTED says that the device was switched off, and EPROTO that the
// peer broke the protocol.
func (c *Conn) Read(p []byte) (int, error) {
	if s := c.smc.Load(); s != nil {
		return s.Read(p)
	}
	t, s, err := c.carrier("read", readDeadline)
	switch {
	case err != nil:
		return 0, err
	case s != nil:
		return s.Read(p)
	}
	return t.Read(p)
}

// Write writes all bytes. See [net.Conn]; ECONNABORTED and EPROTO as for Read.
func (c *Conn) Write(p []byte) (int, error) {
	if s := c.smc.Load(); s != nil {
		return s.Write(p)
	}
	t, s, err := c.carrier("write", writeDeadline)
	switch {
	case err != nil:
		return 0, err
	case s != nil:
		return s.Write(p)
	}
	return t.Write(p)
}

// ReadFrom writes what it reads from r until io.EOF. On TCP it is net.TCPConn's, with sendfile and splice; in SMC-D mode it
// reads into the peer's buffer without a copy in between.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	t, s, err := c.carrier("readfrom", writeDeadline)
	switch {
	case err != nil:
		return 0, err
	case s != nil:
		return s.ReadFrom(r)
	}
	return t.ReadFrom(r)
}

// WriteTo writes what it reads to w until io.EOF, as ReadFrom does the other way round.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	t, s, err := c.carrier("writeto", readDeadline)
	switch {
	case err != nil:
		return 0, err
	case s != nil:
		return s.WriteTo(w)
	}
	return t.WriteTo(w)
}

// Which deadline limits the wait for the handshake.
const (
	readDeadline = iota
	writeDeadline
)

// carrier waits for the handshake and returns what carries the bytes.
func (c *Conn) carrier(op string, which int) (*net.TCPConn, *stream.Conn, error) {
	if s := c.smc.Load(); s != nil {
		return nil, s, nil
	}
	if t := c.plain.Load(); t != nil {
		return t, nil, nil
	}
	if err := c.wait(which); err != nil {
		return nil, nil, c.opError(op, err)
	}
	return c.plain.Load(), c.smc.Load(), nil
}
