// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"github.com/ismfs/ismfs/dmb"
)

// Tokens returns the tokens of the own DMB and of the peer's.
func (c *Conn) Tokens() (own, peer dmb.Token) { return c.link.Own.Token(), c.link.Peer.Token() }

// Buffers returns the bytes that the own ring holds, and the peer's.
func (c *Conn) Buffers() (own, peer int) { return int(c.rxLen), int(c.txLen) }

// Copied reports whether what is written is copied by a system call (dmb_copy 1).
func (c *Conn) Copied() bool { return c.copied }

// Moved returns the bytes read and written so far.
func (c *Conn) Moved() (read, written uint64) { return c.consumed.Load(), c.produced.Load() }

// WakeUps returns how many system calls were made to wake the peer.
func (c *Conn) WakeUps() uint64 { return c.wakeUps.Load() }

// describe writes the connection's slot.
func (c *Conn) describe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.Slot != nil {
		c.link.Info.State = c.machine.State
		c.link.Slot.SetConn(&c.link.Info)
	}
}

// describeLocked writes what has changed of it.
func (c *Conn) describeLocked() {
	i := &c.link.Info
	shutRead, shutWrite := c.machine.ReadShut(), c.machine.Tx != 0
	if c.link.Slot == nil || c.freed || i.State == c.machine.State && i.ShutRead == shutRead && i.ShutWrite == shutWrite {
		return
	}
	i.State, i.ShutRead, i.ShutWrite = c.machine.State, shutRead, shutWrite
	c.link.Slot.SetConn(i)
}

// moveTo makes the connection one of the device that another block is of, and describes it there. The process's lock is held.
func (c *Conn) moveTo(b *dmb.Block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link.Epoch = b.Epoch()
	if c.freed {
		return
	}
	c.link.Slot, _ = b.NewSlot() // nil: it is not listed
	if c.link.Slot != nil {
		c.link.Slot.SetConn(&c.link.Info)
	}
}
