// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/libsmc/internal/link"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// A Dialer connects as a net.Dialer does, all of whose fields have their meaning. Of its methods only those that are
// overridden here make SMC connections.
type Dialer struct {
	net.Dialer

	// ReadBuffer is the size of the connection's own buffer in SMC-D mode, in bytes, rounded up to a power of two from 16 KiB
	// to 1 MiB; 0 is SMC_RCVBUF's. If nobody says, it is 1 MiB, and less the more connections the process has.
	ReadBuffer int

	// Wait is how the connection waits.
	Wait Wait
}

func (d *Dialer) options() options { return options{d.ReadBuffer, d.Wait} }

// Dial connects to a TCP address, as net.Dial does; network is tcp, tcp4 or tcp6. The connection is always a [*Conn].
func Dial(network, address string) (net.Conn, error) {
	return new(Dialer).DialContext(context.Background(), network, address)
}

// DialTimeout is Dial with a limit.
func DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	d := Dialer{Dialer: net.Dialer{Timeout: timeout}}
	return d.DialContext(context.Background(), network, address)
}

// DialContext is Dial with a context, for http.Transport.DialContext and others of this shape.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return new(Dialer).DialContext(ctx, network, address)
}

// Dial is DialContext without a context.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects. It returns when the TCP connection stands: what becomes of the handshake, [Conn.Handshake] tells,
// and the first Read or Write waits for it. The context and the timeout limit connecting only.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := checkNetwork("dial", network); err != nil {
		return nil, err
	}
	device, err := link.Current()
	if err != nil {
		return d.dialPlain(ctx, network, address, nil, smc.DeclNoSMCDev, err)
	}
	m := marker{tag: device.Tag}
	tcp, err := d.dialTCP(ctx, network, address, &m)
	if err != nil {
		return nil, err
	}
	c := newConn(tcp, procs.Client, d.options())
	c.device = device
	answer, err := ask(tcp)
	switch {
	case err != nil && !m.marked.Load():
		c.settleTCP(m.reason(), 0, m.cause())
		return c, nil
	case err != nil:
		// Nobody can tell what the server has been promised: begin anew, without a promise.
		tcp.SetLinger(0)
		tcp.Close()
		return d.dialPlain(ctx, network, address, device, smc.DeclCnfErr, err)
	case answer.State != smcopt.SMC && answer.State != smcopt.Kernel:
		c.settleTCP(smc.DeclPeerNoSMC, 0, nil)
		return c, nil
	}
	p, done, err := c.propose()
	switch {
	case err != nil:
		c.fail(err)
		return nil, c.opError("dial", err)
	case !done:
		go c.connect(&p)
	}
	return c, nil
}

// dialPlain connects without announcing SMC.
func (d *Dialer) dialPlain(ctx context.Context, network, address string, device *link.Device, reason smc.DeclineCode, cause error) (net.Conn, error) {
	tcp, err := d.dialTCP(ctx, network, address, nil)
	if err != nil {
		return nil, err
	}
	c := newConn(tcp, procs.Client, d.options())
	c.device = device
	c.settleTCP(reason, 0, cause)
	return c, nil
}

// dialTCP connects by net.Dialer. Its sockets are marked, unless m is nil.
func (d *Dialer) dialTCP(ctx context.Context, network, address string, m *marker) (*net.TCPConn, error) {
	dialer := d.Dialer
	dialer.SetMultipathTCP(false) // a mark on an MPTCP socket would land on none of its subflows
	if m != nil {
		dialer.ControlContext = m.after(d.Dialer.ControlContext, d.Dialer.Control)
		dialer.Control = nil
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// A marker marks sockets before they connect: several, if an address has several.
type marker struct {
	tag     smcopt.Tag
	marked  atomic.Bool           // one at least could be
	failure atomic.Pointer[error] // why one could not
}

// cause returns why a socket could not be marked, and reason the code for it.
func (m *marker) cause() error {
	if err := m.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (m *marker) reason() smc.DeclineCode {
	switch {
	case errors.Is(m.cause(), smcopt.ErrNoDevice):
		return smc.DeclNoSMCDev
	case errors.Is(m.cause(), errFastOpen):
		return smc.DeclOptUnsupp
	}
	return smc.DeclCnfErr // no programs on this host
}

// after returns a control function that does what the program wants and marks the socket then.
func (m *marker) after(first func(context.Context, string, string, syscall.RawConn) error,
	second func(string, string, syscall.RawConn) error) func(context.Context, string, string, syscall.RawConn) error {
	return func(ctx context.Context, network, address string, raw syscall.RawConn) error {
		switch {
		case first != nil:
			if err := first(ctx, network, address, raw); err != nil {
				return err
			}
		case second != nil:
			if err := second(network, address, raw); err != nil {
				return err
			}
		}
		m.mark(raw, first != nil || second != nil)
		return nil
	}
}

// errFastOpen keeps a socket from being marked whose SYN waits for the first bytes: what the server says would come too late.
var errFastOpen = errors.New("TCP Fast Open")

// mark marks a socket. program says that the program has had it, and can have set options.
func (m *marker) mark(raw syscall.RawConn, program bool) {
	err := control(raw, func(fd int) error {
		if program && fastOpen(fd) {
			return errFastOpen
		}
		return smcopt.Mark(fd, m.tag)
	})
	if err != nil {
		m.failure.Store(&err)
		return
	}
	m.marked.Store(true)
}

// checkNetwork refuses what is not TCP.
func checkNetwork(op, network string) error {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return nil
	}
	return &net.OpError{Op: op, Net: network, Err: net.UnknownNetworkError(network)}
}
