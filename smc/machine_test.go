// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"errors"
	"io"
	"syscall"
	"testing"
)

const (
	done   = PeerDoneWriting
	closed = PeerConnClosed
	abort  = PeerConnAbort
)

var allStates = []State{
	Init, Active, PeerCloseWait1, PeerCloseWait2, AppCloseWait1, AppCloseWait2,
	AppFinCloseWait, PeerFinCloseWait, ProcessAbort, PeerAbortWait, Listen, Closed,
}

func TestStateNames(t *testing.T) {
	for state, want := range map[State]struct {
		number uint8
		name   string
	}{
		Active: {1, "ACTIVE"}, Init: {2, "INIT"}, Closed: {7, "CLOSED"}, Listen: {10, "LISTEN"},
		PeerCloseWait1: {20, "PEERCLOSEWAIT1"}, PeerCloseWait2: {21, "PEERCLOSEWAIT2"},
		AppCloseWait1: {22, "APPCLOSEWAIT1"}, AppCloseWait2: {23, "APPCLOSEWAIT2"},
		AppFinCloseWait: {24, "APPFINCLOSEWAIT"}, PeerFinCloseWait: {25, "PEERFINCLOSEWAIT"},
		PeerAbortWait: {26, "PEERABORTWAIT"}, ProcessAbort: {27, "PROCESSABORT"}, 99: {99, "SMC state 99"},
	} {
		if uint8(state) != want.number || state.String() != want.name {
			t.Errorf("%d %s, want %d %s", uint8(state), state, want.number, want.name)
		}
	}
}

// The steps of the tests below.
const (
	shutdownWR = "shutdown(WR)"
	closeNow   = "close"
	closeLoss  = "close, unread bytes"
	rdwr       = "shutdown(RDWR)"
	rxDone     = "rx done"
	rxClosed   = "rx closed"
	rxAbort    = "rx abort"
	kill       = "kill"
)

func step(m *Machine, event string) (a Action, err error) {
	switch event {
	case shutdownWR:
		a, err = m.ShutdownWrite()
	case closeNow:
		a = m.Close(false)
	case closeLoss:
		a = m.Close(true)
	case rdwr:
		a, err = m.ShutdownBoth(false)
	case rxDone:
		m.Received(done)
	case rxClosed:
		m.Received(closed)
	case rxAbort:
		m.Received(abort)
	case kill:
		a = m.Kill()
	default:
		panic(event)
	}
	return a, err
}

// TestMachineTable is the kernel's table, cell by cell. from has what was sent
// and received before; "same" is a cell that changes and sends nothing.
func TestMachineTable(t *testing.T) {
	type cell struct {
		event    string
		state    State
		send     StateFlags
		closeTCP bool
		err      error
	}
	same := func(event string, s State) cell { return cell{event: event, state: s} }
	notConn := func(event string, s State) cell { return cell{event: event, state: s, err: syscall.ENOTCONN} }
	for _, row := range []struct {
		name  string
		from  Machine
		cells []cell
	}{
		{"INIT", Machine{State: Init}, []cell{
			notConn(shutdownWR, Init), notConn(rdwr, Init),
			same(closeNow, Closed), same(closeLoss, Closed),
			same(rxDone, AppCloseWait1), same(rxClosed, AppCloseWait1), same(rxAbort, ProcessAbort),
			same(kill, Init),
		}},
		{"ACTIVE", Machine{State: Active}, []cell{
			{shutdownWR, PeerCloseWait1, done, false, nil},
			{closeNow, PeerCloseWait1, closed, true, nil},
			{closeLoss, PeerCloseWait1, abort, true, nil},
			{rdwr, PeerCloseWait1, closed, true, nil},
			same(rxDone, AppCloseWait1), same(rxClosed, AppCloseWait1), same(rxAbort, ProcessAbort),
			{kill, Closed, abort, true, nil},
		}},
		{"PEERCLOSEWAIT1, done sent", Machine{State: PeerCloseWait1, Tx: done}, []cell{
			same(shutdownWR, PeerCloseWait1),
			{closeNow, PeerCloseWait1, closed, false, nil},
			{closeLoss, PeerCloseWait1, abort, false, nil},
			{rdwr, PeerCloseWait1, closed, false, nil},
			same(rxDone, PeerCloseWait2), same(rxClosed, AppFinCloseWait), same(rxAbort, ProcessAbort),
			{kill, Closed, abort, true, nil},
		}},
		{"PEERCLOSEWAIT1, closed sent by shutdown", Machine{State: PeerCloseWait1, Tx: closed}, []cell{
			same(shutdownWR, PeerCloseWait1), same(closeNow, PeerCloseWait1), same(rdwr, PeerCloseWait1),
			same(rxDone, PeerCloseWait2), same(rxClosed, AppFinCloseWait), same(rxAbort, Closed),
			{kill, Closed, 0, true, nil},
		}},
		{"PEERCLOSEWAIT1, closed", Machine{State: PeerCloseWait1, Tx: closed, released: true}, []cell{
			same(rxDone, PeerCloseWait2), same(rxClosed, Closed), same(rxAbort, Closed),
			{kill, Closed, 0, true, nil},
		}},
		{"PEERCLOSEWAIT1, done sent, closed", Machine{State: PeerCloseWait1, Tx: done | closed, released: true}, []cell{
			same(rxDone, PeerCloseWait2), same(rxClosed, Closed), same(rxAbort, Closed),
		}},
		{"PEERCLOSEWAIT2, done sent", Machine{State: PeerCloseWait2, Tx: done, rx: done}, []cell{
			same(shutdownWR, PeerCloseWait2),
			{closeNow, PeerCloseWait2, closed, false, nil},
			{closeLoss, PeerCloseWait2, abort, false, nil},
			{rdwr, PeerCloseWait2, closed, false, nil},
			same(rxDone, PeerCloseWait2), same(rxClosed, AppFinCloseWait), same(rxAbort, ProcessAbort),
			{kill, Closed, abort, true, nil},
		}},
		{"PEERCLOSEWAIT2, closed", Machine{State: PeerCloseWait2, Tx: closed, rx: done, released: true}, []cell{
			same(rxDone, PeerCloseWait2), same(rxClosed, Closed), same(rxAbort, Closed),
		}},
		{"APPCLOSEWAIT1, done received", Machine{State: AppCloseWait1, rx: done}, []cell{
			{shutdownWR, AppCloseWait2, done, false, nil},
			{closeNow, PeerFinCloseWait, closed, false, nil},
			{closeLoss, PeerFinCloseWait, abort, false, nil},
			{rdwr, PeerFinCloseWait, closed, false, nil},
			same(rxDone, AppCloseWait1), same(rxClosed, AppCloseWait1), same(rxAbort, ProcessAbort),
			{kill, Closed, abort, true, nil},
		}},
		{"APPCLOSEWAIT1, closed received", Machine{State: AppCloseWait1, rx: closed}, []cell{
			{shutdownWR, AppCloseWait2, done, false, nil},
			{closeNow, Closed, closed, false, nil},
			{closeLoss, Closed, abort, false, nil},
			{rdwr, Closed, closed, false, nil},
			same(rxDone, AppCloseWait1), same(rxClosed, AppCloseWait1), same(rxAbort, ProcessAbort),
		}},
		{"APPCLOSEWAIT2, done received", Machine{State: AppCloseWait2, Tx: done, rx: done}, []cell{
			same(shutdownWR, AppCloseWait2),
			{closeNow, PeerFinCloseWait, closed, false, nil},
			{closeLoss, PeerFinCloseWait, abort, false, nil},
			{rdwr, PeerFinCloseWait, closed, false, nil},
			same(rxDone, AppCloseWait2), same(rxClosed, AppCloseWait2), same(rxAbort, Closed),
			{kill, Closed, abort, true, nil},
		}},
		{"APPCLOSEWAIT2, closed received", Machine{State: AppCloseWait2, Tx: done, rx: closed}, []cell{
			{closeNow, Closed, closed, false, nil},
			{closeLoss, Closed, abort, false, nil},
			same(rxAbort, Closed),
		}},
		{"APPFINCLOSEWAIT, done sent", Machine{State: AppFinCloseWait, Tx: done, rx: closed}, []cell{
			same(shutdownWR, AppFinCloseWait),
			{closeNow, Closed, closed, false, nil},
			{closeLoss, Closed, abort, false, nil},
			{rdwr, Closed, closed, false, nil},
			same(rxDone, AppFinCloseWait), same(rxClosed, AppFinCloseWait), same(rxAbort, ProcessAbort),
			{kill, Closed, abort, true, nil},
		}},
		{"APPFINCLOSEWAIT, closed sent", Machine{State: AppFinCloseWait, Tx: closed, rx: closed}, []cell{
			same(closeNow, Closed), same(rdwr, Closed), same(rxAbort, ProcessAbort),
		}},
		{"PEERFINCLOSEWAIT", Machine{State: PeerFinCloseWait, Tx: closed, rx: done, released: true}, []cell{
			notConn(shutdownWR, PeerFinCloseWait), notConn(rdwr, PeerFinCloseWait),
			same(closeNow, PeerFinCloseWait),
			same(rxDone, PeerFinCloseWait), same(rxClosed, Closed), same(rxAbort, Closed),
			{kill, Closed, 0, true, nil},
		}},
		{"PROCESSABORT", Machine{State: ProcessAbort, rx: abort}, []cell{
			notConn(shutdownWR, ProcessAbort), notConn(rdwr, ProcessAbort),
			{closeNow, Closed, abort, false, nil},
			{closeLoss, Closed, abort, false, nil},
			same(rxDone, ProcessAbort), same(rxClosed, ProcessAbort), same(rxAbort, ProcessAbort),
			{kill, Closed, abort, true, nil},
		}},
		{"PEERABORTWAIT", Machine{State: PeerAbortWait}, []cell{
			notConn(shutdownWR, PeerAbortWait), notConn(rdwr, PeerAbortWait),
			same(closeNow, Closed),
			same(rxDone, PeerAbortWait), same(rxClosed, PeerAbortWait), same(rxAbort, Closed),
			same(kill, PeerAbortWait),
		}},
		{"LISTEN", Machine{State: Listen}, []cell{
			notConn(shutdownWR, Listen), notConn(rdwr, Listen),
			{closeNow, Closed, 0, true, nil},
			same(rxDone, Listen), same(rxAbort, Listen), same(kill, Listen),
		}},
		{"CLOSED", Machine{State: Closed}, []cell{
			notConn(shutdownWR, Closed), notConn(rdwr, Closed), same(closeNow, Closed),
			same(rxDone, Closed), same(rxClosed, Closed), same(rxAbort, Closed), same(kill, Closed),
		}},
	} {
		for _, c := range row.cells {
			m := row.from
			a, err := step(&m, c.event)
			if m.State != c.state || a.Send != c.send || a.CloseTCP != c.closeTCP || !errors.Is(err, c.err) {
				t.Errorf("%s, %s: %v, %+v, %v; want %v, send %x, close TCP %t, %v",
					row.name, c.event, m.State, a, err, c.state, c.send, c.closeTCP, c.err)
			}
			if want := row.from.Tx | c.send; m.Tx != want {
				t.Errorf("%s, %s: Tx %x, want %x", row.name, c.event, m.Tx, want)
			}
		}
	}
}

func TestMachineErrors(t *testing.T) {
	for _, test := range []struct {
		name        string
		m           Machine
		steps       []string
		read, write error
	}{
		{"unconnected", NewMachine(), nil, syscall.ENOTCONN, syscall.ENOTCONN},
		{"listener", Machine{State: Listen}, nil, syscall.ENOTCONN, syscall.EPIPE},
		{"never connected, closed", NewMachine(), []string{closeNow}, io.EOF, syscall.EPIPE},
		{"closed, not shut down", Machine{State: Closed}, nil, syscall.ENOTCONN, syscall.EPIPE},
		{"active", Machine{State: Active}, nil, nil, nil},
		{"own shutdown", Machine{State: Active}, []string{shutdownWR}, nil, syscall.EPIPE},
		{"own shutdown of both", Machine{State: Active}, []string{rdwr}, io.EOF, syscall.EPIPE},
		{"own close", Machine{State: Active}, []string{closeNow}, io.EOF, syscall.EPIPE},
		{"peer done", Machine{State: Active}, []string{rxDone}, io.EOF, nil},
		{"peer closed", Machine{State: Active}, []string{rxClosed}, io.EOF, syscall.ECONNRESET},
		{"peer done, then closed", Machine{State: Active}, []string{rxDone, rxClosed}, io.EOF, syscall.ECONNRESET},
		{"peer aborted", Machine{State: Active}, []string{rxAbort}, syscall.ECONNRESET, syscall.ECONNRESET},
		{"peer done, then aborted", Machine{State: Active}, []string{rxDone, rxAbort}, syscall.ECONNRESET, syscall.ECONNRESET},
		{"both done", Machine{State: Active}, []string{shutdownWR, rxDone}, io.EOF, syscall.EPIPE},
		{"done, peer closed", Machine{State: Active}, []string{shutdownWR, rxClosed}, io.EOF, syscall.EPIPE},
		{"peer done, closed here", Machine{State: Active}, []string{rxDone, closeNow}, io.EOF, syscall.EPIPE},
		{"peer closed, closed here", Machine{State: Active}, []string{rxClosed, closeNow}, io.EOF, syscall.EPIPE},
		{"killed", Machine{State: Active}, []string{kill}, syscall.ECONNABORTED, syscall.ECONNABORTED},
		{"killed, then the peer's abort", Machine{State: Active}, []string{kill, rxAbort}, syscall.ECONNABORTED, syscall.ECONNABORTED},
		{"aborted, then killed", Machine{State: Active}, []string{rxAbort, kill}, syscall.ECONNRESET, syscall.ECONNRESET},
	} {
		m := test.m
		for _, s := range test.steps {
			if _, err := step(&m, s); err != nil {
				t.Errorf("%s, %s: %v", test.name, s, err)
			}
		}
		if got := m.ReadError(); got != test.read {
			t.Errorf("%s (%v): read %v, want %v", test.name, m.State, got, test.read)
		}
		if got := m.WriteError(); got != test.write {
			t.Errorf("%s (%v): write %v, want %v", test.name, m.State, got, test.write)
		}
	}
}

func TestMachineShutdownRead(t *testing.T) {
	m := Machine{State: Active}
	if err := m.ShutdownRead(); err != nil || m.ReadError() != io.EOF || m.WriteError() != nil || m.State != Active {
		t.Errorf("%v, %+v", err, m)
	}
	for _, s := range []State{Init, Listen, Closed, PeerFinCloseWait, PeerAbortWait, ProcessAbort} {
		m := Machine{State: s}
		if err := m.ShutdownRead(); err != syscall.ENOTCONN {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func TestMachineMustDrain(t *testing.T) {
	for _, s := range allStates {
		for _, rx := range []StateFlags{0, done, closed, abort} {
			m := Machine{State: s, rx: rx}
			want := s == Active || (s == AppCloseWait1 || s == AppCloseWait2) && !rx.AnyClose()
			if m.MustDrain() != want {
				t.Errorf("%v after %x: %t", s, rx, !want)
			}
		}
	}
}

func TestMachineEstablishment(t *testing.T) {
	m := NewMachine()
	m.Received(done) // before the server saw the Confirm
	m.Established()
	if m.State != AppCloseWait1 {
		t.Errorf("closed before established: %v", m.State)
	}
	m = NewMachine()
	m.Established()
	m.Listening()
	if m.State != Active {
		t.Errorf("%v", m.State)
	}
	m = NewMachine()
	m.Listening()
	m.Established()
	if m.State != Listen {
		t.Errorf("%v", m.State)
	}
}

// TestMachineDialogue runs two machines against each other with every order of
// up to five steps. Both must get rid of the connection once both have closed,
// at the latest when the TCP connection ends, and nothing is sent after closed
// or abort.
func TestMachineDialogue(t *testing.T) {
	local := []string{shutdownWR, rdwr, closeNow, closeLoss}
	var walk func(a, b Machine, toA, toB StateFlags, depth int)
	check := func(m *Machine, act Action) {
		if act.Send != 0 && (m.Tx &^ act.Send).AnyClose() {
			t.Fatalf("sent %x after %x", act.Send, m.Tx&^act.Send)
		}
	}
	walk = func(a, b Machine, toA, toB StateFlags, depth int) {
		if depth == 0 {
			if !a.released {
				toB |= a.Close(false).Send
			}
			if !b.released {
				toA |= b.Close(false).Send
			}
			a.Received(toA)
			b.Received(toB)
			if a.Finished() != b.Finished() { // the finished one has closed TCP
				a.Received(closed)
				b.Received(closed)
			}
			if !a.Finished() || !b.Finished() {
				t.Fatalf("not finished: %+v, %+v", a, b)
			}
			return
		}
		for _, event := range local {
			if !a.released {
				m := a
				act, _ := step(&m, event)
				check(&m, act)
				walk(m, b, toA, toB|act.Send, depth-1)
			}
			if !b.released {
				m := b
				act, _ := step(&m, event)
				check(&m, act)
				walk(a, m, toA|act.Send, toB, depth-1)
			}
		}
		if toA != 0 {
			m := a
			m.Received(toA)
			walk(m, b, toA, toB, depth-1)
		}
		if toB != 0 {
			m := b
			m.Received(toB)
			walk(a, m, toA, toB, depth-1)
		}
	}
	for depth := range 6 {
		walk(Machine{State: Active}, Machine{State: Active}, 0, 0, depth)
	}
}
