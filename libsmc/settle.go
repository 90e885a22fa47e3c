// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/ismfs/ismfs/libsmc/internal/link"
	"github.com/ismfs/ismfs/libsmc/internal/stream"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// Handshake waits until it is settled whether the connection is SMC-D or TCP. Read and Write do so by themselves.
//
// Errors: why the handshake failed and there is no connection, net.ErrClosed; context errors leave the handshake going on.
func (c *Conn) Handshake(ctx context.Context) error {
	select {
	case <-c.settled:
	case <-ctx.Done():
		return c.opError("handshake", context.Cause(ctx))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opError("handshake", c.err)
}

// wait waits for the handshake, as long as a deadline allows.
func (c *Conn) wait(which int) error {
	for {
		c.mu.Lock()
		moved, deadline, closing := c.moved, c.deadlines[which], c.closing
		c.mu.Unlock()
		if closing {
			return net.ErrClosed
		}
		var over <-chan time.Time // nil: never
		if !deadline.IsZero() {
			over = time.After(time.Until(deadline))
		}
		select {
		case <-c.settled:
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.err
		case <-over:
			return os.ErrDeadlineExceeded
		case <-moved:
		}
	}
}

// settleSMC ends the handshake in SMC-D mode.
func (c *Conn) settleSMC(s *stream.Conn, a *link.Attempt, gid smc.GID) {
	c.mu.Lock()
	c.info.Mode, c.info.GID = SMCD, gid
	c.info.LinkGroup, c.info.PeerProcess, c.info.EID = a.Describe()
	s.SetReadDeadline(c.deadlines[readDeadline])
	s.SetWriteDeadline(c.deadlines[writeDeadline])
	if c.linger != nil {
		s.SetLinger(*c.linger)
	}
	c.smc.Store(s)
	c.slot = nil
	c.mu.Unlock()
	close(c.settled)
	debug("SMC-D", "local", c.LocalAddr(), "peer", c.RemoteAddr(), "point", c.device.Point())
}

// settleTCP ends the handshake on TCP. reason is counted; cause is what went wrong here, if anything did.
func (c *Conn) settleTCP(reason, diagnosis smc.DeclineCode, cause error) {
	c.mu.Lock()
	c.info.Mode, c.info.Reason, c.info.PeerDiagnosis, c.info.Cause = TCP, reason, diagnosis, cause
	c.tcp.SetReadDeadline(c.deadlines[readDeadline])
	c.tcp.SetWriteDeadline(c.deadlines[writeDeadline])
	c.plain.Store(c.tcp)
	if c.device != nil {
		c.device.CountFallback(c.role, reason)
		if c.slot == nil && !c.closing {
			c.slot = c.device.NewSlot()
		}
		c.describeLocked(smc.Active)
	}
	c.mu.Unlock()
	close(c.settled)
	args := []any{"local", c.LocalAddr(), "peer", c.RemoteAddr(), "reason", reason.String()}
	if diagnosis != 0 {
		args = append(args, "peer_diagnosis", diagnosis.String())
	}
	if cause != nil {
		args = append(args, "cause", cause)
	}
	debug("TCP", args...)
}

// fail ends the handshake without a connection.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.closing {
		err = net.ErrClosed
	} else if c.device != nil {
		c.device.CountHandshakeError(c.role)
	}
	c.err = err
	c.freeSlotLocked()
	c.mu.Unlock()
	c.tcp.SetLinger(0)
	c.tcp.Close()
	close(c.settled)
	debug("handshake failed", "local", c.LocalAddr(), "peer", c.RemoteAddr(), "err", err)
}

// procsInfo is the connection as its slot describes it.
func (c *Conn) procsInfo(state smc.State) procs.Conn {
	return procs.Conn{
		Role: c.role, State: state, Local: addrPort(c.LocalAddr()), Peer: addrPort(c.RemoteAddr()),
		Reason: c.info.Reason, PeerDiagnosis: c.info.PeerDiagnosis, Inode: inode(c.tcp),
	}
}

// describeLocked writes the slot of a connection that is not in SMC-D mode.
func (c *Conn) describeLocked(state smc.State) {
	if c.slot == nil {
		return
	}
	p := c.procsInfo(state)
	if c.info.Mode == TCP {
		p.Mode = procs.TCP
	}
	c.slot.SetConn(&p)
}

func (c *Conn) freeSlotLocked() {
	if c.slot != nil {
		c.slot.Free()
		c.slot = nil
	}
}
