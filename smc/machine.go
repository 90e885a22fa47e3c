// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"io"
	"syscall"
)

// Machine is the closing protocol of one connection (net/smc/smc_close.c): its
// state, what each side has told the other, and what reads and writes return.
// It does nothing itself; its methods return what there is to do.
//
// As in the kernel there is one end that the peer's flags do not report: an
// abort that arrives in AppCloseWait2 is not answered. The peer that sent it is
// released by the end of the TCP connection (see Received).
//
// The caller guards it by a lock. Zero is not a state: start with NewMachine.
type Machine struct {
	State State

	// Tx holds the flags that were sent to the peer. They belong into every
	// consumer word written from then on.
	Tx StateFlags

	rx       StateFlags    // received
	released bool          // the application has closed (SOCK_DEAD)
	noRead   bool          // RCV_SHUTDOWN by the application
	err      syscall.Errno // sk_err: ECONNRESET, ECONNABORTED or 0
}

// Action is what a step asks of the caller, in this order.
type Action struct {
	// Send has the flags that are new in Tx: write a consumer word and signal
	// the peer. 0: there is nothing to send. After PeerConnClosed or
	// PeerConnAbort no word is ever written again.
	Send StateFlags

	// CloseTCP: shut the TCP connection down in both directions, so that
	// TIME_WAIT stays on the closing side; after Kill, reset it.
	CloseTCP bool
}

// NewMachine returns the Machine of a socket that is not connected yet.
func NewMachine() Machine { return Machine{State: Init} }

// Listening makes an unconnected socket a listener.
func (m *Machine) Listening() {
	if m.State == Init {
		m.State = Listen
	}
}

// Established marks the end of the handshake. A peer may have closed before: a
// server's socket gets data and flags from when its Accept is sent.
func (m *Machine) Established() {
	if m.State == Init {
		m.State = Active
	}
}

// MustDrain reports whether a shutdown for writing or a close should first
// wait until all data is sent: for the linger time, else for as long as the
// caller thinks right. The state may have changed after the wait.
func (m *Machine) MustDrain() bool {
	switch m.State {
	case Active:
		return true
	case AppCloseWait1, AppCloseWait2:
		return !m.rx.AnyClose()
	}
	return false
}

// ShutdownRead ends reading. The peer does not hear of it. Its only error is
// ENOTCONN.
func (m *Machine) ShutdownRead() error {
	if !m.State.connected() {
		return syscall.ENOTCONN
	}
	m.noRead = true
	return nil
}

// ShutdownWrite ends writing (smc_close_shutdown_write). Its only error is
// ENOTCONN.
func (m *Machine) ShutdownWrite() (Action, error) {
	if !m.State.connected() {
		return Action{}, syscall.ENOTCONN
	}
	switch m.State {
	case Active:
		m.State = PeerCloseWait1
		return m.send(PeerDoneWriting), nil
	case AppCloseWait1:
		m.State = AppCloseWait2
		return m.send(PeerDoneWriting), nil
	}
	return Action{}, nil
}

// ShutdownBoth ends reading and writing while the application keeps the
// socket. unread says that bytes have arrived that nobody read. Its only error is
// ENOTCONN.
func (m *Machine) ShutdownBoth(unread bool) (Action, error) {
	if !m.State.connected() {
		return Action{}, syscall.ENOTCONN
	}
	a := m.closeActive(unread)
	m.noRead = true
	return a, nil
}

// Close is the application's close. unread says that bytes have arrived that
// nobody read: they are lost, and the peer hears abort instead of closed.
func (m *Machine) Close(unread bool) Action {
	a := m.closeActive(unread)
	m.released = true
	m.noRead = true
	return a
}

// ReadShut reports whether reading has ended: by the application, or because the peer will send no more (RCV_SHUTDOWN).
func (m *Machine) ReadShut() bool { return m.noRead || m.rx != 0 }

// Finished reports whether both sides are done with the connection: its TCP
// connection and its DMBs can go.
func (m *Machine) Finished() bool { return m.State == Closed && m.released }

// closeActive is smc_close_active.
func (m *Machine) closeActive(unread bool) Action {
	final := PeerConnClosed
	if unread {
		final = PeerConnAbort
	}
	switch m.State {
	case Init, PeerAbortWait:
		m.State = Closed
	case Listen:
		m.State = Closed
		return Action{CloseTCP: true}
	case Active:
		m.State = PeerCloseWait1
		a := m.send(final)
		a.CloseTCP = true
		return a
	case PeerCloseWait1, PeerCloseWait2:
		if m.Tx&PeerDoneWriting != 0 {
			return m.send(final)
		}
	case AppCloseWait1, AppCloseWait2:
		m.State = PeerFinCloseWait
		if m.rx.AnyClose() {
			m.State = Closed
		}
		return m.send(final)
	case AppFinCloseWait:
		m.State = Closed
		if m.Tx&PeerDoneWriting != 0 {
			return m.send(final)
		}
	case ProcessAbort:
		m.State = Closed
		return m.send(PeerConnAbort)
	}
	return Action{}
}

// Received takes the state flags of the peer's consumer word, all that are
// set. The same flags may come again. The end of the TCP connection without
// flags is given as the flag that it means.
func (m *Machine) Received(flags StateFlags) {
	m.rx |= flags
	switch {
	case m.rx&PeerConnAbort != 0:
		m.receivedAbort()
	case m.rx != 0:
		m.receivedClose()
	}
}

// receivedAbort is smc_close_passive_abort_received.
func (m *Machine) receivedAbort() {
	switch m.State {
	case Init, Active, AppCloseWait1, AppFinCloseWait:
		m.State = ProcessAbort
	case PeerCloseWait1, PeerCloseWait2:
		if m.Tx&PeerDoneWriting != 0 && !m.Tx.AnyClose() {
			m.State = ProcessAbort
		} else {
			m.State = Closed
		}
	case AppCloseWait2, PeerFinCloseWait, PeerAbortWait:
		m.State = Closed
	default:
		return
	}
	m.fail(syscall.ECONNRESET)
}

// receivedClose is the rest of smc_close_passive_work.
func (m *Machine) receivedClose() {
	switch m.State {
	case Init, Active:
		m.State = AppCloseWait1
	case PeerCloseWait1, PeerCloseWait2:
		if m.rx&PeerDoneWriting != 0 {
			m.State = PeerCloseWait2
		}
		if !m.rx.AnyClose() {
			return
		}
		if m.released && m.Tx.AnyClose() {
			m.State = Closed
		} else {
			m.State = AppFinCloseWait
		}
	case PeerFinCloseWait:
		if m.rx.AnyClose() {
			m.State = Closed
		}
	}
}

// Kill ends the connection because its device or link group ends
// (smc_conn_kill): the peer hears abort, reads and writes give ECONNABORTED.
func (m *Machine) Kill() Action {
	switch m.State {
	case Init, Listen, Closed, PeerAbortWait:
		return Action{}
	}
	m.State = Closed
	m.fail(syscall.ECONNABORTED)
	a := m.send(PeerConnAbort)
	a.CloseTCP = true
	return a
}

// send adds flags to Tx. Closed or abort is the last thing that a peer hears.
func (m *Machine) send(flags StateFlags) Action {
	if m.Tx.AnyClose() {
		return Action{}
	}
	m.Tx |= flags
	return Action{Send: flags}
}

func (m *Machine) fail(e syscall.Errno) {
	if m.err == 0 {
		m.err = e
	}
}

// ReadError returns what a read gives when no bytes are left: ENOTCONN,
// ECONNRESET, ECONNABORTED, io.EOF, or nil if it has to wait (smc_recvmsg,
// smc_rx_recvmsg).
//
// The kernel reports ECONNRESET and ECONNABORTED to one call and clears them;
// here they stay.
func (m *Machine) ReadError() error {
	switch {
	case m.State == Init, m.State == Listen:
		return syscall.ENOTCONN
	case m.err != 0:
		return m.err
	case m.State == PeerFinCloseWait, m.noRead, m.rx != 0:
		return io.EOF
	case m.State == Closed:
		return syscall.ENOTCONN
	}
	return nil
}

// WriteError returns what a write gives, before it looks for space: ENOTCONN,
// ECONNRESET, ECONNABORTED, EPIPE, or nil (smc_sendmsg, smc_tx_sendmsg).
func (m *Machine) WriteError() error {
	switch {
	case m.State == Init:
		return syscall.ENOTCONN
	case m.err != 0:
		return m.err
	case m.State != Active && m.State != AppCloseWait1:
		return syscall.EPIPE
	case m.rx.AnyClose():
		return syscall.ECONNRESET
	}
	return nil
}
