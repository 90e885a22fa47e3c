// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

// chunk is the most that is copied before it is published, so that both sides copy at once and stay in the cache.
const chunk = 64 << 10

// A receiver is the reader's state.
type receiver struct {
	cons     smc.Cursor // how far I have read
	ctrl     smc.RxCtrl // its producer half
	word     uint64     // the producer word that was accepted last
	left     uint32     // bytes up to it that are not read yet
	borrowed int        // bytes that Borrow gave out
	lent     bool       // Borrow has given out, Release not taken back
}

// Read waits for bytes and reads up to len(p) of them. Bytes that arrived before an end or an error come first.
//
// Errors, in a *net.OpError: [io.EOF] (bare) at the peer's end of writing, ECONNRESET the peer aborted or is gone with bytes
// unread, ECONNABORTED the device was switched off, net.ErrClosed, os.ErrDeadlineExceeded, EPROTO (a *smc.ProtocolError) the
// peer broke the contract, [ErrLent].
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	n, err := c.read(p)
	c.rmu.Unlock()
	if err != nil {
		return n, c.opError("read", err)
	}
	return n, nil
}

func (c *Conn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, c.refused(&c.reading)
	}
	n, err := c.readable(len(p))
	if err != nil {
		return 0, err
	}
	n = min(n, len(p))
	c.copyOut(p[:n])
	c.countRead(n)
	return n, nil
}

// readable waits until something can be read and returns how much. Fewer than want may be only what was there last time.
func (c *Conn) readable(want int) (int, error) {
	if err := c.turn(&c.reading, &c.rmu); err != nil {
		return 0, err
	}
	if c.rx.lent {
		return 0, ErrLent
	}
	for {
		if err := c.refused(&c.reading); err != nil {
			return 0, err
		}
		if int(c.rx.left) >= want {
			break
		}
		c.accept()
		stop := c.reading.stop.Load() // before the producer word: bytes published before an end are seen with it
		if err := c.look(); err != nil {
			c.fail(err)
			return 0, err
		}
		if c.rx.left > 0 {
			break
		}
		if stop {
			return 0, c.readError()
		}
		c.wait(dmb.Reader)
	}
	c.countAvailable(want)
	return int(c.rx.left), nil
}

// look accepts the producer word if it has changed.
func (c *Conn) look() error {
	word := c.link.Own.Producer()
	if word == c.rx.word {
		return nil
	}
	n, err := c.rx.ctrl.UpdateProducer(word, c.rx.cons, c.rxLen)
	if err != nil {
		return err
	}
	c.rx.word, c.rx.left = word, n
	return nil
}

// copyOut reads len(p) bytes, which are there.
func (c *Conn) copyOut(p []byte) {
	ring := c.link.Own.Ring()
	for len(p) > 0 {
		n := copy(p[:min(len(p), chunk)], ring[c.rx.cons.Count:])
		c.advance(uint32(n))
		p = p[n:]
	}
}

// advance moves the reader's cursor, and publishes it if the kernel's rule says so.
func (c *Conn) advance(n uint32) {
	cons := c.rx.cons.Add(n, c.rxLen)
	c.rx.cons = cons
	c.rx.left -= n
	c.consumed.Store(c.consumed.Load() + uint64(n))
	told, _, _ := smc.ParseConsumerWord(c.confirmed.Load())
	if smc.ConsumerUpdate(c.rxLen, told, cons, c.rx.ctrl.Prod, c.peerFlags(), false) {
		c.publishConsumer()
	}
}
