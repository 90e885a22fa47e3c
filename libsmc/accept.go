// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/libsmc/internal/link"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// The server's side of the handshake (smc_listen_work in af_smc.c): it reads the Proposal, sends the Accept and reads the
// Confirm. A client has clcTimeout for each of its messages. One that has not begun it then is late, see late.go; one of another
// implementation, which answers by itself, has ended.
const clcTimeout = 6 * time.Second // CLC_WAIT_TIME

// serve is the server's handshake on a connection whose client has announced SMC.
func (c *Conn) serve() { c.settleError(c.answer()) }

func (c *Conn) answer() error {
	err := c.awaitClient(true)
	var p smc.Proposal
	if err == nil {
		p, err = readProposal(c.tcp)
	}
	c.heard()
	if err != nil {
		return c.lateDecline(err)
	}
	device, err := link.Current()
	if err != nil {
		return c.declineProposal(smc.DeclNoSMCDev, err)
	}
	c.device = device
	local, err := device.Local()
	if err != nil {
		return c.declineProposal(smc.DeclNoSMCDev, err)
	}
	agreed, err := smc.AnswerProposal(&p, &local)
	var code smc.DeclineCode
	if errors.As(err, &code) {
		return c.declineProposal(code, err)
	} else if err != nil {
		return err
	}
	attempt, err := device.Serve(p.Process(), agreed, bufferSize(c.askedBuffer()))
	if err != nil {
		return c.declineProposal(link.Reason(err), err)
	}
	accept := attempt.Accept()
	if err = sendAnswer(c.tcp, &accept); err == nil {
		err = c.confirmed(attempt, &accept, p.Process() != 0)
	}
	if err != nil {
		var d declined
		if errors.As(err, &d) && d.OutOfSync {
			attempt.OutOfSync()
		}
		attempt.Abandon()
		return c.declineIf(err)
	}
	return c.open(attempt)
}

// declineProposal declines. A client under smc_run that has waited too long has declined behind its Proposal and goes on after
// one message of the server's; that Decline is not the program's.
func (c *Conn) declineProposal(code smc.DeclineCode, cause error) error {
	if err := sendDecline(c.tcp, code); err != nil {
		return err
	}
	if followsDecline(c.tcp) {
		if _, _, err := readMessage(c.tcp); err != nil {
			return err
		}
	}
	c.settleTCP(code, 0, cause)
	return nil
}

// await gives the client its time for the next message or its end, or none if the handshake has been given up.
func (c *Conn) await(patience time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaiting = true
	limit := time.Now().Add(patience)
	switch {
	case c.givenUp:
		limit = time.Unix(1, 0)
	case patience == forever:
		limit = time.Time{}
	}
	c.tcp.SetReadDeadline(limit)
}

// heard ends what await began.
func (c *Conn) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaiting = false
	c.tcp.SetReadDeadline(time.Time{})
}

// giveUp ends the handshake where it next waits for the client. What is settled meanwhile stays.
func (c *Conn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.givenUp = true
	if c.awaiting {
		c.tcp.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *Conn) isGivenUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.givenUp
}

// confirmed waits for the client's Confirm and checks it.
func (c *Conn) confirmed(a *link.Attempt, accept *smc.AcceptConfirm, mayBeLate bool) error {
	err := c.awaitClient(mayBeLate)
	var confirm smc.AcceptConfirm
	if err == nil {
		confirm, err = readAnswer(c.tcp, smc.MsgConfirm)
	}
	c.heard()
	if err != nil {
		return err
	}
	if _, err := smc.CheckConfirm(accept, &confirm); err != nil {
		return err
	}
	err = a.Confirmed(&confirm)
	if errors.Is(err, syscall.ENOENT) {
		err = c.outlive(a, err)
	}
	return failed(err)
}

// endTimeout is how long the end of a client that has let go of its DMB is waited for.
const endTimeout = time.Second

// outlive goes on where the client may have written, closed and exited before this side came to its Confirm. Over TCP that is no
// error. gone is the error if it has not ended.
func (c *Conn) outlive(a *link.Attempt, gone error) error {
	c.await(endTimeout)
	n, end := c.tcp.Read(make([]byte, 1))
	c.heard()
	if n > 0 || errors.Is(end, os.ErrDeadlineExceeded) {
		return gone
	}
	return a.Outlive(end)
}

// failed keeps a decline code in err from being sent: the client has its connection already, so only a reset is left
// (reference 1.10).
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &hardError{err}
}

type hardError struct{ err error }

func (e *hardError) Error() string { return "SMC handshake: " + e.err.Error() }

// lateDecline counts where this process has a device: the client's Decline came in place of a Proposal.
func (c *Conn) lateDecline(err error) error {
	if d, e := link.Current(); e == nil {
		c.device = d
	}
	return err
}

// newServed takes an accepted connection and returns it, settled if it is plain TCP. An error says that it cannot be told
// what the client expects: the connection is reset.
func newServed(tcp *net.TCPConn, marked bool, o options) (*Conn, error) {
	c := newConn(tcp, procs.Server, o)
	if !marked {
		c.settlePlain(smc.DeclNoSMCDev)
		return c, nil
	}
	answer, err := ask(tcp)
	switch {
	case errors.Is(err, smcopt.ErrNotMarked):
		// Its client was told nothing.
		c.settlePlain(smc.DeclPeerNoSMC)
	case err != nil && silent(tcp):
		// The programs cannot tell: somebody has removed them, say.
		c.settlePlain(smc.DeclPeerNoSMC)
	case err != nil:
		tcp.SetLinger(0)
		tcp.Close()
		return nil, err
	case answer.State == smcopt.SMC:
		// to be served
	default:
		c.settlePlain(smc.DeclPeerNoSMC)
	}
	return c, nil
}

// settlePlain settles a connection whose peer has not announced SMC, or before which this side has not.
func (c *Conn) settlePlain(reason smc.DeclineCode) {
	d, err := link.Current()
	if err == nil {
		c.device = d
	}
	c.settleTCP(reason, 0, err)
}
