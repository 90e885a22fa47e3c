// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

// Close ends the connection. If bytes have arrived that nobody read they are lost, and the peer gets ECONNRESET, as with TCP.
// What was written is the peer's already: there is nothing to wait for.
//
// The closing flag is the last word that is written into the peer's DMB; after it the TCP connection is shut down for
// writing, which is when the peer may use the DMBs for another connection: so a Borrow or Reserve that is out comes back
// before. The link is given back when the peer has closed too, or is gone, or after closeTime.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return c.opError("close", net.ErrClosed)
	}
	c.reading.deadline.stop()
	c.writing.deadline.stop()
	c.rouse(dmb.Reader)
	c.rouse(dmb.Writer)
	reset, lent := c.tellPeer()
	var err error
	if reset || !lent {
		err = c.shutTCP(reset)
	}
	if err = errors.Join(err, c.freeIfUnused()); err != nil {
		return c.opError("close", err)
	}
	return nil
}

// tellPeer writes the closing flag when both sides have left, and returns whether TCP is to be reset, and whether anything is
// lent.
func (c *Conn) tellPeer() (reset, lent bool) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	reset = c.linger0 || c.spoiled
	c.performLocked(c.machine.Close(c.linger0 || c.unread()))
	c.finished = true
	reset = reset || c.fault != nil
	lent = c.rx.lent || c.tx.lent
	c.owesFIN = lent && !reset
	return reset, lent
}

// returned goes on where Close has stopped because something was lent, if nothing is any more.
func (c *Conn) returned() {
	if !c.closed.Load() {
		return
	}
	if c.takeFIN() {
		c.shutTCP(false)
	}
	c.freeIfUnused()
}

func (c *Conn) takeFIN() (owed bool) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	owed = c.owesFIN && !c.rx.lent && !c.tx.lent
	c.owesFIN = c.owesFIN && !owed
	return owed
}

// unread reports whether the peer has sent what was not read. A word that makes no sense counts as such. Under rmu.
func (c *Conn) unread() bool {
	return smc.ParseProducerWord(c.link.Own.Producer()) != c.rx.cons
}

// freeIfUnused gives the link back once both sides are through and nothing is lent.
func (c *Conn) freeIfUnused() error {
	free, reusable := c.markFreed()
	if !free {
		return nil
	}
	return c.giveBack(reusable)
}

// markFreed reports whether the caller is to give the link back: nobody else touches it from then on. reusable says that each
// side has written its last word, in order, so that nobody writes into the DMBs any more.
func (c *Conn) markFreed() (free, reusable bool) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished || !c.tcpEnded || c.freed || c.rx.lent || c.tx.lent {
		return false, false
	}
	c.acceptLocked()
	c.freed = true
	// Closed in order at both ends, which both know then. An abort may be heard at one end only, and the other end would offer
	// a DMB again that this one has let go. Before its FIN the peer may still have part of the ring lent.
	tx, rx := c.machine.Tx, c.ctrl.StateFlags
	return true, !c.spoiled && c.finSeen && tx&rx&smc.PeerConnClosed != 0 && (tx|rx)&smc.PeerConnAbort == 0
}

func (c *Conn) giveBack(reusable bool) error {
	c.asking.Lock() // nobody begins to ask about what is freed
	c.asking.Unlock()
	defer c.link.Process.remove(c) // last: it may be unmapped then
	if c.link.Pages != nil {
		c.link.Pages.leave(c)
	}
	if c.link.Slot != nil {
		c.link.Slot.Free()
	}
	err := c.link.TCP.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if c.link.Release == nil {
		return errors.Join(err, c.link.OwnBell.Close(), c.link.PeerBell.Close(), c.link.Peer.Close(), c.link.Own.Close())
	}
	if reusable {
		c.link.Own.Reset(c.written())
	}
	c.link.Release(reusable, c.consumed.Load())
	return err
}

// written returns how much of the own ring the peer has ever written, as it says itself.
func (c *Conn) written() int {
	prod := smc.ParseProducerWord(c.link.Own.Producer())
	if prod.Wrap == 0 && prod.Count < c.rxLen && c.consumed.Load() < uint64(c.rxLen) {
		return int(prod.Count)
	}
	return int(c.rxLen)
}

// shutTCP shuts the TCP connection down for writing, or resets it.
func (c *Conn) shutTCP(reset bool) error {
	if !reset {
		c.link.TCP.SetReadDeadline(time.Now().Add(closeTime))
		c.link.TCP.CloseWrite() // an error says that it has ended already
		return nil
	}
	c.link.TCP.SetLinger(0)
	err := c.link.TCP.Close() // ends Watch
	c.mu.Lock()
	c.tcpEnded = true
	c.mu.Unlock()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// stopWaitingLocked ends the wait for the peer's end after Close.
func (c *Conn) stopWaitingLocked() {
	if c.finished {
		c.link.TCP.SetReadDeadline(time.Now())
	}
}

// closeTime is how long a closed connection waits for the peer to close (the kernel's tcp_fin_timeout, for the same state
// of TCP).
var closeTime = 60 * time.Second

// errBytes is what a byte on the idle TCP connection is.
var errBytes = &smc.ProtocolError{Msg: "SMC-D", Detail: "bytes on the TCP connection of a connection in SMC-D mode"}

// Watch waits for the end of the TCP connection, which is the connection's sign of life. It returns when the connection is over:
// at the peer's end, or some time after Close.
func (c *Conn) Watch() {
	if c.link.Ended == nil {
		n, err := c.link.TCP.Read(make([]byte, 1))
		if n > 0 {
			c.fail(errBytes)
		}
		c.tcpGone(err)
	}
	if c.closed.Load() {
		c.freeIfUnused()
	}
}

// CloseRead ends reading. The peer does not hear of it.
func (c *Conn) CloseRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.shutdownError()
	if err == nil {
		err = c.machine.ShutdownRead()
	}
	if err != nil {
		return c.opError("close", named("shutdown", err))
	}
	c.changedLocked()
	return nil
}

// CloseWrite ends writing: the peer reads io.EOF after the last byte. Reading goes on. A Write that waits fails with EPIPE.
func (c *Conn) CloseWrite() error {
	c.writing.shut.Store(true)
	c.rouse(dmb.Writer)
	c.wmu.Lock() // the flag comes after the last byte
	defer c.wmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.shutdownError()
	var a smc.Action
	if err == nil {
		a, err = c.machine.ShutdownWrite()
	}
	if err != nil {
		return c.opError("close", named("shutdown", err))
	}
	c.performLocked(a)
	return nil
}

func (c *Conn) shutdownError() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return nil
}

// SetLinger with 0 makes Close abort the connection: the peer gets ECONNRESET once it has read what was written. Any other
// value makes no difference, since Close leaves nothing behind that could linger.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.shutdownError(); err != nil {
		return c.opError("set", err)
	}
	c.linger0 = sec == 0
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the time after which reads fail with os.ErrDeadlineExceeded, also those that wait. Zero is none.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(dmb.Reader, t) }

// SetWriteDeadline does the same for writes. A write that it ends may have written some of its bytes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(dmb.Writer, t) }

func (c *Conn) setDeadline(s dmb.Side, t time.Time) error {
	if c.closed.Load() {
		return c.opError("set", net.ErrClosed)
	}
	if c.end(s).deadline.set(t) {
		c.rouse(s)
	}
	return nil
}

// expire is what the timers of both deadlines do. Both are marked before anybody wakes: whoever learns from a Read that the
// time has come finds a Write that had the same deadline refused.
func (c *Conn) expire() {
	read, write := c.reading.deadline.expire(), c.writing.deadline.expire()
	if read {
		c.rouse(dmb.Reader)
	}
	if write {
		c.rouse(dmb.Writer)
	}
}

// tcpGone says that the TCP connection has ended: err is io.EOF after a FIN, anything else after a reset or a failure of
// keep-alive. If the peer has said before how it ends, that counts. Else a reset is ECONNRESET, and a FIN is io.EOF if
// the peer has confirmed all bytes written to it, and ECONNRESET if not.
func (c *Conn) tcpGone(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tcpEnded, c.finSeen = true, errors.Is(err, io.EOF)
	if c.freed || c.fault != nil {
		return
	}
	c.acceptLocked()
	flag := smc.PeerConnAbort
	if errors.Is(err, io.EOF) {
		flag = c.abandoned()
	}
	c.peerGoneLocked(flag)
}

func (c *Conn) peerGoneLocked(flag smc.StateFlags) {
	if c.ctrl.StateFlags.AnyClose() {
		return
	}
	c.receivedLocked(flag)
}

// kill ends the connection because the device does.
func (c *Conn) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.freed {
		c.killLocked()
	}
}

func (c *Conn) killLocked() {
	c.spoiled = true
	c.performLocked(c.machine.Kill())
	c.stopWaitingLocked()
}

// checkLinks asks the device whether the peer is there still. An error says nothing: the daemon may be dead, and memory goes
// on working. It may as well be slow, so nobody who moves bytes waits for its answer.
func (c *Conn) checkLinks() {
	c.asking.Lock()
	defer c.asking.Unlock()
	c.mu.Lock()
	freed := c.freed
	c.mu.Unlock()
	if freed {
		return
	}
	own, err := c.link.Own.Links()
	if err != nil {
		return
	}
	peer, err := c.link.Peer.Links()
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.freed {
		return
	}
	c.acceptLocked() // after the look: what the peer said before it left counts
	c.peerMet = c.peerMet || own >= 2
	switch {
	case own == 0, peer == 0:
		c.killLocked()
	case peer < 2, own < 2 && c.peerMet:
		c.peerGoneLocked(c.abandoned())
		c.stopWaitingLocked()
	}
}
