// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc/internal/link"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// mostHandshakes is how many handshakes a listener carries on at once. One more ends the oldest: a crowd of silent clients
// must not keep the others out.
const mostHandshakes = 4096

// A ListenConfig listens as a net.ListenConfig does, whose fields have their meaning.
type ListenConfig struct {
	net.ListenConfig

	// ReadBuffer and Wait are Dialer.ReadBuffer and Dialer.Wait, for accepted connections.
	ReadBuffer int
	Wait       Wait
}

// Listen listens on a TCP address, as net.Listen does; network is tcp, tcp4 or tcp6. The listener is always a [*Listener].
func Listen(network, address string) (net.Listener, error) {
	return new(ListenConfig).Listen(context.Background(), network, address)
}

// Listen listens.
func (lc *ListenConfig) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := checkNetwork("listen", network); err != nil {
		return nil, err
	}
	config := lc.ListenConfig
	config.SetMultipathTCP(false) // a mark on an MPTCP socket would land on none of its subflows
	l, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newListener(l.(*net.TCPListener), options{lc.ReadBuffer, lc.Wait}), nil
}

// NewListener makes a listener of a TCP listener that is there already, from socket activation for one, and owns it from then
// on. If other processes share the socket, all of them must be of this package: a mark is the socket's.
func NewListener(l *net.TCPListener) *Listener { return newListener(l, options{}) }

// A Listener accepts SMC and plain connections. Its Accept returns a connection once it is settled which one it is; a plain
// one at once, whatever others do.
//
// Connections are taken from the socket only while somebody waits in Accept, so that processes that share it do not take one
// another's.
type Listener struct {
	tcp     *net.TCPListener
	options options
	stop    func() // of the device watch

	marks sync.Mutex // held while the socket is marked or un-marked
	tag   smcopt.Tag // zero: not marked

	mu       sync.Mutex
	marked   bool // ever: connections may have been promised SMC
	handed   bool // File gave the socket to somebody: no marks any more
	closed   bool
	ready    []*Conn // settled, to be accepted
	pending  []*Conn // handshakes, the oldest first
	deadline time.Time
	slot     *dmb.Slot
	device   *link.Device
}

var _ net.Listener = (*Listener)(nil)

func newListener(tcp *net.TCPListener, o options) *Listener {
	l := &Listener{tcp: tcp, options: o}
	l.stop = link.OnChange(l.join)
	if d, err := link.Current(); err == nil {
		l.join(d)
	}
	return l
}

// join marks the listener for a device and describes it there.
func (l *Listener) join(d *link.Device) {
	l.marks.Lock()
	defer l.marks.Unlock()
	l.mu.Lock()
	if l.closed || l.handed || l.device == d {
		l.mu.Unlock()
		return
	}
	before := l.marked
	l.marked = true // before the first client can be promised anything
	l.mu.Unlock()
	raw, err := l.tcp.SyscallConn()
	if err == nil {
		err = control(raw, func(fd int) error { return smcopt.Mark(fd, d.Tag) })
	}
	slot := d.NewSlot()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marked = before || err == nil
	if l.closed {
		if slot != nil {
			slot.Free()
		}
		return
	}
	if l.slot != nil {
		l.slot.Free()
	}
	l.device, l.slot = d, slot
	if slot != nil {
		slot.SetConn(&procs.Conn{Listener: true, State: smc.Listen, Local: addrPort(l.Addr()), Inode: inode(l.tcp)})
	}
	debug("listening", "local", l.Addr(), "point", d.Point(), "err", err)
}

// Addr returns the listener's address.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Accept waits for the next connection, which is a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptSMC()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// AcceptSMC waits for the next connection.
func (l *Listener) AcceptSMC() (*Conn, error) {
	for {
		c, err := l.next()
		if c != nil || err != nil {
			return c, err
		}
		tcp, err := l.tcp.AcceptTCP()
		if err == nil {
			if c := l.take(tcp); c != nil {
				return c, nil
			}
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || l.expired() {
			return nil, err
		}
		// A handshake has ended: see next.
	}
}

// next returns the next settled connection, nil if there is none; then the socket waits until the listener's deadline.
func (l *Listener) next() (*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	if len(l.ready) > 0 {
		c := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		return c, nil
	}
	return nil, l.tcp.SetDeadline(l.deadline)
}

// expired reports whether the listener's own deadline has passed.
func (l *Listener) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.deadline.IsZero() && !time.Now().Before(l.deadline)
}

// take returns an accepted connection if it is settled, and else begins its handshake.
func (l *Listener) take(tcp *net.TCPConn) *Conn {
	l.mu.Lock()
	marked := l.marked
	l.mu.Unlock()
	c, err := newServed(tcp, marked, l.options)
	if err != nil {
		debug("connection reset: cannot tell whether it is SMC", "peer", tcp.RemoteAddr(), "err", err)
		return nil
	}
	if isClosed(c.settled) {
		return c
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		tcp.SetLinger(0)
		tcp.Close()
		return nil
	}
	l.pending = append(l.pending, c)
	var oldest *Conn
	if len(l.pending) > mostHandshakes {
		oldest = l.pending[0]
	}
	l.mu.Unlock()
	if oldest != nil {
		oldest.giveUp()
	}
	go l.serve(c)
	return nil
}

// serve carries a handshake on, and wakes an Accept for what has come of it.
func (l *Listener) serve(c *Conn) {
	c.serve()
	l.served(c)
	c.watch()
}

func (l *Listener) served(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = without(l.pending, c)
	if c.err != nil {
		return // and closed
	}
	l.settledLocked(c)
}

// settled takes a connection for the next Accept.
func (l *Listener) settled(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settledLocked(c)
}

func (l *Listener) settledLocked(c *Conn) {
	if l.closed {
		c.SetLinger(0)
		go c.Close()
		return
	}
	l.ready = append(l.ready, c)
	l.tcp.SetDeadline(time.Unix(1, 0)) // who waits for the socket looks here
}

// SetDeadline sets the time after which Accept fails with os.ErrDeadlineExceeded. Zero is none.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if len(l.ready) > 0 {
		return nil // who waits for the socket is on the way here: see serve
	}
	return l.tcp.SetDeadline(t)
}

// Close stops listening. Handshakes that go on, and connections that nobody has accepted, are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.closed = true
	ready, pending := l.ready, append([]*Conn(nil), l.pending...)
	l.ready = nil
	if l.slot != nil {
		l.slot.Free()
		l.slot = nil
	}
	l.mu.Unlock()
	l.stop()
	err := l.tcp.Close()
	for _, c := range pending {
		c.giveUp()
	}
	for _, c := range pending {
		<-c.settled
	}
	for _, c := range ready {
		c.SetLinger(0)
		c.Close()
	}
	return err
}

// File returns a copy of the socket, for another process to listen on. It is un-marked first, so that who knows nothing of SMC
// can use it: all later connections of this listener are plain TCP too. Connections that have been promised SMC already are
// taken here, for Accept.
func (l *Listener) File() (*os.File, error) {
	l.marks.Lock()
	defer l.marks.Unlock()
	l.mu.Lock()
	l.handed = true
	marked := l.marked
	l.mu.Unlock()
	if marked {
		raw, err := l.tcp.SyscallConn()
		if err == nil {
			err = control(raw, smcopt.Unmark)
		}
		if err != nil && !errors.Is(err, smcopt.ErrNoPrograms) {
			return nil, &net.OpError{Op: "file", Net: "tcp", Addr: l.Addr(), Err: err}
		}
		if err := l.drain(raw); err != nil {
			return nil, err
		}
	}
	return l.tcp.File()
}

// drainTime is how long clients that have been promised SMC have for the last segment of their TCP handshake.
const drainTime = 10 * time.Millisecond

// drain takes what the socket has queued. It asks the socket itself: Accepts may go on, each with a deadline of its own.
func (l *Listener) drain(raw syscall.RawConn) error {
	for end := time.Now().Add(drainTime); ; {
		tcp, err := acceptQueued(raw)
		switch {
		case err != nil:
			return &net.OpError{Op: "file", Net: "tcp", Addr: l.Addr(), Err: err}
		case tcp == nil && time.Now().After(end):
			return nil
		case tcp == nil:
			time.Sleep(time.Millisecond)
		default:
			if c := l.take(tcp); c != nil {
				l.settled(c)
			}
		}
	}
}

// CloseIdle lets go of the buffers that are kept for the next connections to the same processes. They go by themselves ten
// minutes after the last connection.
func CloseIdle() { link.CloseIdle() }
