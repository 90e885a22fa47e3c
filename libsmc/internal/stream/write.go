// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

// A sender is the writer's state.
type sender struct {
	prod     smc.Cursor // how far I have written, published
	blocked  bool       // write_blocked is shown
	reserved int        // bytes that Reserve gave out
	lent     bool       // Reserve has given out, Commit not taken back
	buffer   []byte     // what Reserve gives out where the peer's DMB is not mapped
}

// Write writes all of p, and waits for space as often as it must. What it has written is in the peer's memory.
//
// Errors, in a *net.OpError, with the number of bytes written before: EPIPE after CloseWrite, ECONNRESET the peer has closed,
// aborted or gone, ECONNABORTED the device was switched off, net.ErrClosed, os.ErrDeadlineExceeded, EPROTO (a
// *smc.ProtocolError) the peer broke the contract, [ErrLent].
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	n, err := c.write(p)
	c.wmu.Unlock()
	if err != nil {
		return n, c.opError("write", err)
	}
	return n, nil
}

func (c *Conn) write(p []byte) (int, error) {
	if err := c.refused(&c.writing); err != nil || len(p) == 0 {
		return 0, err // a closed connection may have given back what counting needs
	}
	n := 0
	var err error
	for n < len(p) && err == nil {
		var written int
		written, err = c.writeSome(p[n:])
		n += written
	}
	c.countWrite(len(p), n)
	return n, err
}

// writeSome waits for space and writes what fits, at most a chunk.
func (c *Conn) writeSome(p []byte) (int, error) {
	space, err := c.writable(len(p))
	if err != nil {
		return 0, err
	}
	p = p[:min(len(p), space, chunk)]
	if err := c.put(p); err != nil {
		return 0, err
	}
	c.advanceProducer(uint32(len(p)))
	return len(p), nil
}

// writable waits until there is space, and returns how much. want is what the caller has to write, 1 or more.
func (c *Conn) writable(want int) (int, error) {
	if err := c.turn(&c.writing, &c.wmu); err != nil {
		return 0, err
	}
	if c.tx.lent {
		return 0, ErrLent
	}
	full := false
	for {
		err := c.refused(&c.writing)
		if err == nil {
			c.accept()
			if c.writing.stop.Load() {
				err = c.writeError()
			}
		}
		if err != nil {
			c.setWriteBlocked(false) // nothing is left waiting
			return 0, err
		}
		space := int(c.space())
		c.setWriteBlocked(want > space)
		if space > 0 {
			if full {
				c.countFull()
			}
			return space, nil
		}
		full = true
		c.wait(dmb.Writer)
	}
}

// put copies p behind the producer cursor, round the ring's end. There is space.
func (c *Conn) put(p []byte) error {
	at := c.tx.prod.Count
	first := min(len(p), int(c.txLen-at))
	err := c.link.Peer.Put(p[:first], int(at))
	if err == nil && first < len(p) {
		err = c.link.Peer.Put(p[first:], 0)
	}
	if err != nil {
		c.fail(err)
	}
	return err
}

// advanceProducer publishes n more bytes. They are counted before: who has read them finds them in xfer_bytes.
func (c *Conn) advanceProducer(n uint32) {
	c.produced.Store(c.produced.Load() + uint64(n))
	c.link.Process.Block().Add(dmb.TxBytes, uint64(n))
	c.tx.prod = c.tx.prod.Add(n, c.txLen)
	c.publishProducer(c.tx.prod)
}
