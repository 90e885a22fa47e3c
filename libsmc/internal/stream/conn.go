// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// A Link is what a handshake leaves: everything that a connection is made of. Both rings are empty or hold only what the
// peer has sent since it learned the token.
type Link struct {
	Own      *dmb.Registered
	Peer     *dmb.Attached
	OwnBell  *dmb.Bell    // nil where this side never sleeps on it: there are pages
	PeerBell *dmb.Bell    // nil where the peer says that it never does
	TCP      *net.TCPConn // stays open and idle
	Ended    error        // it has ended: by a FIN if it is io.EOF; nil: not yet
	Process  *Process
	Epoch    uint64 // of the device, taken before Own was registered
	Wait     Strategy

	Pages   *Pages // the link group's doorbell pages, usable with the two bits; nil: none
	OwnBit  uint16 // of Own in the own page
	PeerBit uint16 // of Peer in the peer's page

	Slot *dmb.Slot  // where the connection is described, nil: nowhere
	Info procs.Conn // its description; state and shutdowns are kept true

	// Release takes the DMBs and bells back when the connection is over. reusable says that both sides have written their
	// last word: Own is zeroed then. received is how many bytes this side has read. nil: they are closed.
	Release func(reusable bool, received uint64)
}

// A Conn is a connection in SMC-D mode. All methods may be called by several goroutines at once, and Close beside any other.
type Conn struct {
	link         Link
	local, peer  net.Addr
	rxLen, txLen uint32 // rings: mine, the peer's
	copied       bool   // the peer's is written by a system call

	rmu sync.Mutex
	rx  receiver // under rmu
	wmu sync.Mutex
	tx  sender // under wmu

	reading, writing end

	// What both directions look at without a lock.
	consumed  atomic.Uint64 // bytes that I have read; changed under rmu
	produced  atomic.Uint64 // bytes that I have written, stored before the word in the peer's header; changed under wmu
	confirmed atomic.Uint64 // the consumer word that I wrote last; changed under mu
	said      atomic.Uint64 // the consumer word that I accepted last; changed under mu
	closed    atomic.Bool
	waited    atomic.Int64 // the period in which a side waited last: see crowd; only where there are pages

	bell doorbell

	mu       sync.Mutex
	machine  smc.Machine
	ctrl     smc.RxCtrl        // its consumer half: what the peer has said of its reading and its state
	flags    smc.ProducerFlags // that I show
	fault    error             // what the peer did that it must not, or why its DMB cannot be written
	linger0  bool              // SetLinger(0): Close aborts
	peerMet  bool              // the peer has been seen attached to my DMB: only then can it leave
	finished bool              // Close has told the peer
	owesFIN  bool              // TCP is to be shut down when what is lent comes back
	tcpEnded bool              // nothing will come from the TCP connection any more
	finSeen  bool              // since the peer has shut it down
	spoiled  bool              // the DMBs cannot be reused: a fault, or the end of the device
	freed    bool              // the link is given back

	peerAwake atomic.Bool // its reader needed no wake-up for what was written last

	wakeUps atomic.Uint64 // system calls made to wake the peer

	asking sync.Mutex // held while the device is asked about the link, which is not given back meanwhile; before mu
}

// An end is what concerns only one direction: who waits, and what keeps it from waiting.
type end struct {
	deadline         deadline
	stop             atomic.Bool   // what would be waited for will never come: see readError, writeError; changed under mu
	noted            atomic.Uint32 // a dmb.Wait: how the goroutine sleeps, for events of the own side
	shut             atomic.Bool   // CloseWrite has begun
	moving           bool          // what is lent is a ReadFrom's or WriteTo's; under rmu or wmu
	turns            chan struct{} // closed for those who wait for its end, nil if there are none; under mu
	told             chan struct{} // holds one: what wakes a sleeper on the page
	watching         watcher       // under rmu or wmu
	yielding, giving spinner       // likewise
}

var _ net.Conn = (*Conn)(nil)

// New makes a connection of a link and owns it from then on; a goroutine of the caller's has to call Watch. After an error the
// link is still the caller's.
//
// Error: syscall.ECONNABORTED if the device has been switched off since the link's epoch.
func New(l Link) (*Conn, error) {
	c := &Conn{
		link: l, local: l.TCP.LocalAddr(), peer: l.TCP.RemoteAddr(),
		rxLen: uint32(l.Own.Size() - smc.CDCLen), txLen: uint32(l.Peer.Size() - smc.CDCLen),
		copied: !l.Peer.Mapped(), machine: smc.NewMachine(),
		bell: newDoorbell(l.OwnBell),
	}
	c.reading.told, c.writing.told = make(chan struct{}, 1), make(chan struct{}, 1)
	c.reading.deadline.fire, c.writing.deadline.fire = c.expire, c.expire
	c.machine.Established()
	if err := l.Process.add(c); err != nil {
		return nil, err
	}
	if c.link.Pages != nil {
		c.link.Pages.join(c)
	}
	c.describe()
	l.TCP.SetReadDeadline(time.Time{}) // the handshake may have left one
	if l.Ended != nil {
		c.tcpGone(l.Ended)
	}
	return c, nil
}

// LocalAddr and RemoteAddr are the TCP connection's.
func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.peer }

// State returns the connection's state, as the kernel numbers them.
func (c *Conn) State() smc.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine.State
}

// end returns the end of a side.
func (c *Conn) end(s dmb.Side) *end {
	if s == dmb.Reader {
		return &c.reading
	}
	return &c.writing
}

var errShut = os.NewSyscallError("write", syscall.EPIPE)

// refused returns why a call on one side must not go on, whatever there is: net.ErrClosed, EPIPE, os.ErrDeadlineExceeded.
func (c *Conn) refused(e *end) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if e.shut.Load() {
		return errShut
	}
	return e.deadline.err()
}

// accept takes the peer's consumer word if it has changed: its reader's cursor, its flags. The loads of one word by two
// goroutines must be accepted in their order, so it is loaded again under the lock.
func (c *Conn) accept() {
	if c.link.Own.Consumer() == c.said.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acceptLocked()
}

func (c *Conn) acceptLocked() {
	word := c.link.Own.Consumer() // before produced: the peer cannot have read what was published later
	had := c.ctrl.StateFlags
	if _, err := c.ctrl.UpdateConsumer(word, c.producedCursor(), c.txLen); err != nil {
		c.failLocked(err)
		return
	}
	c.said.Store(word)
	if c.ctrl.StateFlags != had {
		c.receivedLocked(c.ctrl.StateFlags)
	}
}

// receivedLocked takes the peer's flags, or what stands for them. An abort after the device was switched off is that, whichever
// of the two is noticed first.
func (c *Conn) receivedLocked(flags smc.StateFlags) {
	if flags&smc.PeerConnAbort != 0 && !c.link.Process.usable(c.link.Epoch) {
		c.performLocked(c.machine.Kill())
		return
	}
	c.machine.Received(flags)
	c.changedLocked()
}

// changedLocked tells both sides what the machine has come to.
func (c *Conn) changedLocked() {
	c.describeLocked()
	c.reading.stop.Store(c.fault != nil || c.machine.ReadError() != nil)
	c.writing.stop.Store(c.fault != nil || c.machine.WriteError() != nil)
	c.rouseLocked(dmb.Reader)
	c.rouseLocked(dmb.Writer)
}

// fail ends the connection because of err: the peer broke the contract, or its DMB cannot be written. Nobody else is touched.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *Conn) failLocked(err error) {
	if c.fault != nil || c.freed {
		return
	}
	c.fault, c.spoiled = err, true
	c.performLocked(c.machine.Kill())
}

// performLocked does what a step of the machine asks for.
func (c *Conn) performLocked(a smc.Action) {
	if a.Send != 0 {
		c.writeConsumerLocked()
		c.signal(dmb.Reader)
		c.signal(dmb.Writer)
	}
	c.changedLocked()
}

func (c *Conn) readError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readErrorLocked()
}

func (c *Conn) readErrorLocked() error {
	if c.fault != nil {
		return c.fault
	}
	return named("read", c.machine.ReadError())
}

func (c *Conn) writeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeErrorLocked()
}

func (c *Conn) writeErrorLocked() error {
	if c.fault != nil {
		return c.fault
	}
	return named("write", c.machine.WriteError())
}

// consumedCursor and producedCursor are the cursors of the two counts, for those who do not hold the direction's lock.
func (c *Conn) consumedCursor() smc.Cursor { return smc.CursorAfter(c.consumed.Load(), c.rxLen) }
func (c *Conn) producedCursor() smc.Cursor { return smc.CursorAfter(c.produced.Load(), c.txLen) }

// unconfirmed reports whether the peer has not said that it read everything.
func (c *Conn) unconfirmed() bool {
	cons, _, _ := smc.ParseConsumerWord(c.said.Load())
	return cons != c.producedCursor()
}

// abandoned is what the end of the peer means where it has not said how it ends: lost bytes are a reset, none an end.
func (c *Conn) abandoned() smc.StateFlags {
	if c.unconfirmed() {
		return smc.PeerConnAbort
	}
	return smc.PeerConnClosed
}
