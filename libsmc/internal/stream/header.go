// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

// publishProducer publishes the writer's cursor and signals the peer's reader. Under wmu.
func (c *Conn) publishProducer(prod smc.Cursor) {
	if err := c.link.Peer.StoreProducer(smc.ProducerWord(prod)); err != nil {
		c.fail(err)
	}
	awake := !c.signal(dmb.Reader)
	if c.peerAwake.Load() != awake {
		c.peerAwake.Store(awake)
	}
}

// publishConsumer publishes the reader's cursor and signals the peer's writer. Under rmu or wmu.
func (c *Conn) publishConsumer() {
	c.mu.Lock()
	c.writeConsumerLocked()
	c.mu.Unlock()
	c.signal(dmb.Writer)
}

// setWriteBlocked shows whether more is to be sent than there is space for. Both sides of the peer must hear that it is: each
// can be asleep with a cursor held back. Under wmu.
func (c *Conn) setWriteBlocked(blocked bool) {
	if c.tx.blocked == blocked {
		return
	}
	c.tx.blocked = blocked
	c.mu.Lock()
	if blocked {
		c.flags |= smc.WriteBlocked
	} else {
		c.flags &^= smc.WriteBlocked
	}
	c.writeConsumerLocked()
	freed := c.freed // after a write that failed, and Close
	c.mu.Unlock()
	if freed {
		return
	}
	c.signal(dmb.Writer)
	if blocked {
		c.signal(dmb.Reader)
	}
}

// writeConsumerLocked writes the consumer word as it is now: the reader's cursor, the writer's flags, the closing flags. The
// word that said closed or aborted is the last one.
func (c *Conn) writeConsumerLocked() {
	_, _, last := smc.ParseConsumerWord(c.confirmed.Load())
	if c.freed || last.AnyClose() {
		return
	}
	word := smc.ConsumerWord(c.consumedCursor(), c.flags, c.machine.Tx)
	c.confirmed.Store(word)
	if err := c.link.Peer.StoreConsumer(word); err != nil {
		c.failLocked(err)
	}
}

// signal wakes a side of the peer if it sleeps, and reports whether it did. The caller has published, and holds one of the locks.
//
// A field that is cleared by somebody else first is that one's to signal; or the peer woke by itself and, should it sleep
// again, looked again after what was published here.
func (c *Conn) signal(s dmb.Side) (slept bool) {
	how := c.link.Own.Waiting(s)
	if how == dmb.Awake || !c.link.Own.ClearWaiting(s, how) {
		return false
	}
	woken := true
	switch {
	case how == dmb.OnFutex && !c.copied:
		c.link.Peer.Wake()
	case how == dmb.OnPage && c.link.Pages != nil:
		woken = c.link.Pages.ring(c.link.PeerBit)
	case c.link.PeerBell == nil: // the peer sleeps as it has said it never would
		woken = false
	default: // also where the peer must not wait as it says
		c.link.PeerBell.Ring()
	}
	if woken {
		c.wakeUps.Add(1)
	}
	return true
}

// announce tells the peer how a side waits. Under rmu or wmu.
func (c *Conn) announce(s dmb.Side, how dmb.Wait) {
	if err := c.link.Peer.StoreWaiting(s, how); err != nil {
		c.fail(err)
	}
}

// peerFlags returns the peer's producer flags as they stand: hints, which no check can make true.
func (c *Conn) peerFlags() smc.ProducerFlags {
	_, flags, _ := smc.ParseConsumerWord(c.link.Own.Consumer())
	return flags
}

// holdsBack reports whether the peer waits for a cursor that I have not published.
func (c *Conn) holdsBack() bool {
	if c.peerFlags()&(smc.WriteBlocked|smc.ConsCursUpdReq) == 0 {
		return false
	}
	told, _, last := smc.ParseConsumerWord(c.confirmed.Load())
	return told != c.consumedCursor() && !last.AnyClose()
}
