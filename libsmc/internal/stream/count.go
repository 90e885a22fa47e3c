// SPDX-License-Identifier: Apache-2.0

package stream

import "github.com/ismfs/ismfs/dmb"

// What is counted when is the kernel's (SMC_STAT_… in smc_rx.c and smc_tx.c). The send buffer is the peer's ring where that
// is mapped; where not there is none, and a full ring is the peer's.

func (c *Conn) countRead(n int) {
	b := c.link.Process.Block()
	b.Add(dmb.RxBytes, uint64(n))
	b.Add(dmb.RxCount, 1)
	b.Add(dmb.UsrRxBuf.Sized(n), 1)
}

// countAvailable counts a receive that meets a full ring, and one that asks for less than there is.
func (c *Conn) countAvailable(want int) {
	if c.rx.left == c.rxLen {
		c.link.Process.Block().Add(dmb.RxFull, 1)
	}
	if want < int(c.rx.left) {
		c.link.Process.Block().Add(dmb.RxSizeSmall, 1)
	}
}

// countWrite counts a send of size bytes, of which done were written.
func (c *Conn) countWrite(size, done int) {
	b := c.link.Process.Block()
	b.Add(dmb.TxCount, 1)
	if done > 0 {
		b.Add(dmb.UsrTxBuf.Sized(size), 1)
	}
	if size > int(c.txLen) {
		b.Add(dmb.TxSizeSmallPeer, 1)
		if !c.copied {
			b.Add(dmb.TxSizeSmall, 1)
		}
	}
}

// countFull counts a wait for space that ended with space.
func (c *Conn) countFull() {
	full := dmb.TxFullPeer
	if !c.copied {
		full = dmb.TxFull
	}
	c.link.Process.Block().Add(full, 1)
}
