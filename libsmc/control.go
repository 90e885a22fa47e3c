// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/libsmc/internal/stream"
)

// LocalAddr and RemoteAddr are the TCP connection's.
func (c *Conn) LocalAddr() net.Addr  { return c.tcp.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// Close ends the connection. What was written reaches the peer, unless it was never settled that there is one; bytes that
// arrived and were not read are lost, and the peer gets ECONNRESET, as with TCP.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return c.opError("close", net.ErrClosed)
	}
	c.closing = true
	close(c.moved)
	c.moved = make(chan struct{})
	settled := isClosed(c.settled)
	if !settled {
		c.tcp.SetLinger(0) // the peer must not take what it has of the handshake for a connection
	}
	c.freeSlotLocked()
	c.mu.Unlock()
	if !settled {
		c.tcp.SetDeadline(time.Unix(1, 0))
		<-c.settled
	}
	if s := c.smc.Load(); s != nil {
		return s.Close()
	}
	if err := c.tcp.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// CloseRead ends reading. The peer hears nothing of it.
func (c *Conn) CloseRead() error {
	t, s, err := c.carrier("close", readDeadline)
	switch {
	case err != nil:
		return err
	case s != nil:
		return s.CloseRead()
	}
	return t.CloseRead()
}

// CloseWrite ends writing: the peer reads io.EOF after the last byte.
func (c *Conn) CloseWrite() error {
	t, s, err := c.carrier("close", writeDeadline)
	switch {
	case err != nil:
		return err
	case s != nil:
		return s.CloseWrite()
	}
	return t.CloseWrite()
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which reads fail with os.ErrDeadlineExceeded. Zero is none.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(readDeadline, t) }

// SetWriteDeadline does the same for writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(writeDeadline, t) }

func (c *Conn) setDeadline(which int, at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return c.opError("set", net.ErrClosed)
	}
	c.deadlines[which] = at
	var to interface {
		SetReadDeadline(time.Time) error
		SetWriteDeadline(time.Time) error
	}
	switch t, s := c.plain.Load(), c.smc.Load(); {
	case s != nil:
		to = s
	case t != nil:
		to = t
	default:
		close(c.moved)
		c.moved = make(chan struct{})
		return nil
	}
	if which == readDeadline {
		return to.SetReadDeadline(at)
	}
	return to.SetWriteDeadline(at)
}

// SetLinger with 0 makes Close abort the connection; see [net.TCPConn.SetLinger]. In SMC-D mode nothing is buffered on this
// side, so other values make no difference.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.smc.Load(); s != nil {
		return s.SetLinger(sec)
	}
	c.linger = &sec
	return c.tcp.SetLinger(sec)
}

// SetReadBuffer sets the size of this side's buffer, in bytes, if the handshake has not chosen it yet: before Dial returns
// that is Dialer.ReadBuffer's. Afterwards it changes nothing, as with the kernel's SMC. On TCP it is net.TCPConn's.
func (c *Conn) SetReadBuffer(bytes int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return c.opError("set", net.ErrClosed)
	}
	if t := c.plain.Load(); t != nil {
		return t.SetReadBuffer(bytes)
	}
	c.options.buffer = bytes
	return nil
}

// SetWriteBuffer is net.TCPConn's on TCP. In SMC-D mode the peer's buffer is the only one, and this changes nothing.
func (c *Conn) SetWriteBuffer(bytes int) error {
	if t := c.plain.Load(); t != nil {
		return t.SetWriteBuffer(bytes)
	}
	return c.refuseClosed()
}

// SetNoDelay is net.TCPConn's on TCP. In SMC-D mode nothing is ever held back, and this changes nothing.
func (c *Conn) SetNoDelay(noDelay bool) error {
	if c.smc.Load() == nil {
		return c.tcp.SetNoDelay(noDelay)
	}
	return c.refuseClosed()
}

func (c *Conn) refuseClosed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return c.opError("set", net.ErrClosed)
	}
	return nil
}

// SetKeepAlive is net.TCPConn's. Keep-alive runs on the TCP connection in either mode.
func (c *Conn) SetKeepAlive(keepalive bool) error { return c.tcp.SetKeepAlive(keepalive) }

// SetKeepAlivePeriod is net.TCPConn's.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error { return c.tcp.SetKeepAlivePeriod(d) }

// SetKeepAliveConfig is net.TCPConn's.
func (c *Conn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	return c.tcp.SetKeepAliveConfig(config)
}

// ErrSMCMode is the error of what cannot be had in SMC-D mode.
var ErrSMCMode = errors.New("the bytes of a connection in SMC-D mode do not pass through its descriptor")

// ErrTCPMode is the error of what can be had in SMC-D mode only.
var ErrTCPMode = errors.New("the connection is on TCP")

// TCPConn waits for the handshake and returns the TCP connection if the connection stays on it, nil if it is in SMC-D mode or
// there is none.
func (c *Conn) TCPConn() *net.TCPConn {
	<-c.settled
	return c.plain.Load()
}

// SyscallConn is net.TCPConn's on TCP. In SMC-D mode it is that of the idle TCP connection, which lives and dies with the
// connection but carries no bytes: socket options can be set there, and a look at it, as connection pools take, says whether
// the peer has gone. Its Read calls the function once and cannot wait, and its Write fails: with [ErrSMCMode].
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	t, s, err := c.carrier("raw", readDeadline)
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		raw, err := c.tcp.SyscallConn()
		return idleConn{raw}, err
	}
	return t.SyscallConn()
}

// An idleConn is the idle TCP connection under a connection in SMC-D mode.
type idleConn struct{ syscall.RawConn }

// Read is not the TCP connection's: that waits for whoever watches it.
func (r idleConn) Read(f func(fd uintptr) (done bool)) error {
	done := false
	if err := r.Control(func(fd uintptr) { done = f(fd) }); err != nil || done {
		return err
	}
	return fmt.Errorf("waiting to read: %w", ErrSMCMode)
}

func (r idleConn) Write(func(fd uintptr) (done bool)) error {
	return fmt.Errorf("writing: %w", ErrSMCMode)
}

// File is net.TCPConn's on TCP. In SMC-D mode it fails with [ErrSMCMode].
func (c *Conn) File() (*os.File, error) {
	t, s, err := c.carrier("file", readDeadline)
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		return nil, c.opError("file", fmt.Errorf("File: %w", ErrSMCMode))
	}
	return t.File()
}

// Info describes the connection as it is now. It does not wait.
func (c *Conn) Info() Info {
	c.mu.Lock()
	i := c.info
	c.mu.Unlock()
	s := c.smc.Load()
	if s == nil {
		return i
	}
	i.State = s.State()
	i.Token, i.PeerToken = s.Tokens()
	i.ReadBuffer, i.WriteBuffer = s.Buffers()
	i.Copied = s.Copied()
	i.BytesRead, i.BytesWritten = s.Moved()
	i.Wait = waitOf(s.Strategy())
	i.WakeUps = s.WakeUps()
	return i
}

// smcOnly waits for the handshake and returns the connection in SMC-D mode.
func (c *Conn) smcOnly(op string, which int) (*stream.Conn, error) {
	_, s, err := c.carrier(op, which)
	if err == nil && s == nil {
		err = c.opError(op, ErrTCPMode)
	}
	return s, err
}

// Borrow waits for bytes and returns what can be read in place: at least one byte, up to the ring's end. Until [Conn.Release]
// nothing else can be read.
//
// The bytes lie in memory that the peer can still write: a program that does not trust its peer copies them before it decides
// anything by them. They stay readable until Release, also when the connection ends, is aborted or closed meanwhile.
//
// Errors: those of Read, and [ErrTCPMode]: on TCP there is nothing to lend.
func (c *Conn) Borrow() ([]byte, error) {
	s, err := c.smcOnly("read", readDeadline)
	if err != nil {
		return nil, err
	}
	return s.Borrow()
}

// Release ends a Borrow: the first n of its bytes are read. They must not be touched any more.
func (c *Conn) Release(n int) error {
	s, err := c.smcOnly("read", readDeadline)
	if err != nil {
		return err
	}
	return s.Release(n)
}

// Reserve waits for space and returns up to n bytes of it, at least one: what is written there and committed is sent. Until
// [Conn.Commit] nothing else can be written.
//
// With dmb_copy 0 it is the peer's ring: the peer can see and change what is written before it is committed, and what it
// holds at first means nothing. With dmb_copy 1 it is a private buffer, which Commit copies. Either stays writable until
// Commit, also when the connection ends meanwhile; what is committed then is lost, and Commit says so.
//
// Errors: those of Write, and [ErrTCPMode].
func (c *Conn) Reserve(n int) ([]byte, error) {
	s, err := c.smcOnly("write", writeDeadline)
	if err != nil {
		return nil, err
	}
	return s.Reserve(n)
}

// Commit ends a Reserve: the first n of its bytes are sent; 0 sends nothing. They must not be touched any more.
func (c *Conn) Commit(n int) error {
	s, err := c.smcOnly("write", writeDeadline)
	if err != nil {
		return err
	}
	return s.Commit(n)
}

// ErrLent is the error of a call that needs what Borrow or Reserve has given out.
var ErrLent = stream.ErrLent
