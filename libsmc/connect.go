// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"errors"
	"io"
	"syscall"

	"github.com/ismfs/ismfs/libsmc/internal/link"
	"github.com/ismfs/ismfs/smc"
)

// The client's side of the handshake (smc_connect, __smc_connect in af_smc.c):
//
//	Proposal  is sent before Dial returns
//	Accept    is waited for without a limit, since the server's program has to run: Read, Write and Close have theirs
//	Confirm   ends it; or a Decline, from either side, and the connection goes on as TCP

// propose sends the Proposal, or the Decline of a client whose device is inactive. done says that there is nothing to wait for.
func (c *Conn) propose() (p smc.Proposal, done bool, err error) {
	local, err := c.device.Local()
	if err == nil && !local.Active {
		err = c.device.ErrOff()
	}
	if err != nil {
		return p, true, c.decline(smc.DeclNoSMCDev, err)
	}
	p = smc.NewProposal(local)
	p.SetProcess(c.device.ID())
	b, err := p.AppendTo(nil)
	if err == nil {
		_, err = c.tcp.Write(b)
	}
	return p, false, err
}

// connect is the rest of the client's handshake.
func (c *Conn) connect(p *smc.Proposal) {
	accept, err := readAnswer(c.tcp, smc.MsgAccept)
	if err == nil {
		err = c.accepted(p, &accept)
	}
	c.settleError(err)
	c.watch()
}

// watch waits for the end of TCP in a goroutine of its own, which needs a small stack for as long as the connection lives: the
// handshake's has grown, and goes.
func (c *Conn) watch() {
	if s := c.smc.Load(); s != nil {
		go s.Watch()
	}
}

// accepted answers an Accept.
func (c *Conn) accepted(p *smc.Proposal, accept *smc.AcceptConfirm) error {
	agreed, err := smc.CheckAccept(p, accept)
	if err != nil {
		return c.declineIf(err)
	}
	attempt, err := c.device.Connect(accept, agreed, bufferSize(c.askedBuffer()))
	if err != nil {
		return c.decline(link.Reason(err), err)
	}
	confirm := attempt.Confirm()
	if err := sendAnswer(c.tcp, &confirm); err != nil {
		attempt.Abandon()
		return err
	}
	return c.open(attempt)
}

// open makes the connection of a finished handshake.
func (c *Conn) open(a *link.Attempt) error {
	c.mu.Lock()
	slot := c.slot
	c.slot = nil
	if slot == nil {
		slot = c.device.NewSlot()
	}
	info := c.procsInfo(smc.Active)
	c.mu.Unlock()
	s, err := a.Open(c.tcp, c.options.strategy(), slot, info)
	if err != nil {
		if slot != nil {
			slot.Free()
		}
		a.Abandon()
		return err
	}
	c.settleSMC(s, a, c.device.GID)
	return nil
}

// askedBuffer returns what SetReadBuffer asked for.
func (c *Conn) askedBuffer() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.options.buffer
}

// decline sends a Decline and settles the connection on TCP.
func (c *Conn) decline(code smc.DeclineCode, cause error) error {
	if err := sendDecline(c.tcp, code); err != nil {
		return err
	}
	c.settleTCP(code, 0, cause)
	return nil
}

// declineIf declines if err is for the peer to hear, and returns it if not.
func (c *Conn) declineIf(err error) error {
	var code smc.DeclineCode
	if errors.As(err, &code) {
		return c.decline(code, err)
	}
	return err
}

// peersLimit says which limit of the device kept the peer from the connection, nil if none did.
func peersLimit(diagnosis smc.DeclineCode) error {
	if diagnosis != smc.DeclMaxDMB {
		return nil
	}
	return errors.New("the device takes no more DMBs of the peer's (--max-dmbs and --max-dmbs-per-uid of ismfs mount)")
}

// settleError settles what a handshake ended in, unless that is settled: a Decline of the peer's means TCP, anything else the
// end.
func (c *Conn) settleError(err error) {
	var d declined
	switch {
	case err == nil:
	case errors.As(err, &d):
		c.settleTCP(smc.DeclPeerDecl, d.Diagnosis, peersLimit(d.Diagnosis))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		c.fail(syscall.ECONNRESET) // closed in the middle of the handshake
	default:
		c.fail(err)
	}
}
