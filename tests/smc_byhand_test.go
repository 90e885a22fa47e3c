// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"io"
	"net"
	"net/rpc"
	"os"
	"sync"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// A handConn is an SMC-D connection without libsmc, made of package dmb alone: the kernel's peer, which knows nothing of link
// groups' doorbell pages. It looks every millisecond instead of sleeping, and rings whether somebody sleeps or not. Its
// handshake is the test's.
type handConn struct {
	*net.TCPConn
	dev   *tree.Device
	block *dmb.Block
	own   *dmb.Registered
	peer  *dmb.Attached
	bell  *dmb.Bell // the peer's

	mu         sync.Mutex // the words
	prod, cons smc.Cursor // in the peer's ring, in the own one
	flags      smc.StateFlags
}

// HandArgs are the arguments of the calls of ByHand.
type HandArgs struct {
	ID    int
	Size  int    `json:",omitempty"`
	Token uint64 `json:",omitempty"`
}

type HandReply struct {
	Err   *PeerError `json:",omitempty"`
	Token uint64     `json:",omitempty"`
}

func (c *peerConn) byHand(method string, args HandArgs) uint64 {
	c.t.Helper()
	args.ID = c.ID
	var r HandReply
	err := c.rpc.Call(method, args, &r)
	if err == nil && r.Err != nil {
		err = r.Err
	}
	if err != nil {
		c.t.Fatalf("%s %+v: %v", method, args, err)
	}
	return r.Token
}

// registerByHand makes a DMB for a connection whose handshake the test makes, and returns its token.
func (c *peerConn) registerByHand(size int) uint64 {
	c.t.Helper()
	return c.byHand("ByHand.Register", HandArgs{Size: size})
}

// attachByHand attaches the peer's DMB; size as an Accept has it. From then on the connection's calls use the two.
func (c *peerConn) attachByHand(token uint64, size uint8) {
	c.t.Helper()
	c.byHand("ByHand.Attach", HandArgs{Token: token, Size: smc.UncompressBufSize(size)})
}

func init() { rpc.Register(ByHand{}) }

// ByHand are the child's half.
type ByHand struct{}

func (r *HandReply) answer(err error) error {
	if err != nil {
		r.Err = &PeerError{Text: err.Error()}
	}
	return nil
}

func (ByHand) Register(a HandArgs, r *HandReply) error {
	dev, err := tree.Find("")
	if err != nil {
		return r.answer(err)
	}
	block, err := dmb.OpenBlock(dev, 4096)
	if err != nil {
		return r.answer(err)
	}
	own, err := dmb.Register(dev, a.Size, block)
	if err != nil {
		return r.answer(err)
	}
	r.Token = uint64(own.Token())
	handles.mu.Lock()
	defer handles.mu.Unlock()
	handles.conns[a.ID] = &handConn{TCPConn: handles.conns[a.ID].(*net.TCPConn), dev: dev, block: block, own: own}
	return nil
}

func (ByHand) Attach(a HandArgs, r *HandReply) (err error) {
	c := connOf(a.ID).(*handConn)
	if c.peer, err = dmb.Attach(c.dev, dmb.Token(a.Token), a.Size); err == nil {
		c.bell, err = dmb.OpenBell(c.dev, dmb.Token(a.Token))
	}
	return r.answer(err)
}

// ring is the length of a DMB's ring.
func ringLen(size int) uint32 { return uint32(size - smc.CDCLen) }

// Write writes over TCP until there is a peer's DMB.
func (c *handConn) Write(p []byte) (n int, err error) {
	if c.peer == nil {
		return c.TCPConn.Write(p)
	}
	ring := ringLen(c.peer.Size())
	for n < len(p) {
		cons, _, closed := smc.ParseConsumerWord(c.own.Consumer())
		if closed.AnyClose() {
			return n, errors.New("the peer has closed")
		}
		c.mu.Lock()
		k := min(uint32(len(p)-n), ring-cons.Diff(c.prod, ring), ring-c.prod.Count)
		if k > 0 {
			if err = c.peer.Put(p[n:n+int(k)], int(c.prod.Count)); err == nil {
				c.prod = c.prod.Add(k, ring)
				err = c.peer.StoreProducer(smc.ProducerWord(c.prod))
			}
			c.signal()
			c.block.Add(dmb.TxBytes, uint64(k))
			n += int(k)
		}
		c.mu.Unlock()
		if err != nil {
			return n, err
		}
		if k == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return n, nil
}

func (c *handConn) Read(p []byte) (int, error) {
	if c.peer == nil {
		return c.TCPConn.Read(p)
	}
	ring := ringLen(c.own.Size())
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, _, flags := smc.ParseConsumerWord(c.own.Consumer()) // before the producer's: what it says of the end is about that
		prod := smc.ParseProducerWord(c.own.Producer())
		k := min(uint32(len(p)), c.cons.Diff(prod, ring), ring-c.cons.Count)
		switch {
		case k > 0:
			copy(p, c.own.Ring()[c.cons.Count:c.cons.Count+k])
			c.mu.Lock()
			defer c.mu.Unlock()
			c.cons = c.cons.Add(k, ring)
			err := c.peer.StoreConsumer(smc.ConsumerWord(c.cons, 0, c.flags))
			c.signal()
			return int(k), err
		case flags&smc.PeerConnAbort != 0:
			return 0, errors.New("the peer has aborted")
		case flags != 0:
			return 0, io.EOF
		}
	}
	return 0, os.ErrDeadlineExceeded
}

func (c *handConn) signal() {
	if c.peer.Mapped() {
		c.peer.Wake()
	}
	c.bell.Ring()
}

// Close says so, as the kernel does, and then ends the TCP connection.
func (c *handConn) Close() (err error) {
	if c.peer != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flags = smc.PeerDoneWriting | smc.PeerConnClosed
		err = c.peer.StoreConsumer(smc.ConsumerWord(c.cons, 0, c.flags))
		c.signal()
		err = errors.Join(err, c.bell.Close(), c.peer.Close())
	}
	return errors.Join(err, c.TCPConn.Close(), c.own.Close())
}
