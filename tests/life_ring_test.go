// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"math/rand"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A transfer in one direction by docs/dmb-format.md, section 1, made by clients. The sender goes on until it is told to
// stop, so that a test can do things to it in full flow without a clock.

// Fields of the wait state and what they say.
const (
	readerField, writerField = 0, 1 // byte 28, byte 29
	sleepsOnWord             = 1
	sleepsOnBell             = 2

	doneWriting = 0x80 // state flag, byte 7 of the consumer word
)

// RingArgs are one end of a connection: numbers of mappings and descriptors of the client. Without a mapping of the peer's
// DMB the end writes by PeerFD and sleeps on OwnBell.
type RingArgs struct {
	Own, Peer         int
	PeerFD            int
	OwnBell, PeerBell int
	Seed              int64
}

// RingReply is how far a transfer is.
type RingReply struct {
	Bytes int64
	Done  bool
	Sum   []byte // sha256, once it is done
	Err   string
}

// StartRing starts sending or receiving in a client; RingState says how far it is, StopRing ends the sending.
func (c *client) StartRing(send bool, a RingArgs) {
	c.t.Helper()
	method := map[bool]string{true: "Calls.StartSend", false: "Calls.StartReceive"}[send]
	if err := c.rpc.Call(method, a, new(RingReply)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) StopRing() {
	c.t.Helper()
	if err := c.rpc.Call("Calls.StopSend", RingArgs{}, new(RingReply)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) RingState() RingReply {
	c.t.Helper()
	var r RingReply
	if err := c.rpc.Call("Calls.RingState", RingArgs{}, &r); err != nil {
		c.t.Fatal(err)
	}
	if r.Err != "" {
		c.t.Fatalf("transfer: %s", r.Err)
	}
	return r
}

// WaitRing waits until a transfer has moved that many bytes.
func (c *client) WaitRing(bytes int64) {
	c.t.Helper()
	waitFor(c.t, fmt.Sprintf("%d bytes to arrive", bytes), func() error {
		if r := c.RingState(); r.Bytes < bytes {
			return fmt.Errorf("%d have", r.Bytes)
		}
		return nil
	})
}

// finish stops a transfer and checks that what arrived is what was sent.
func finish(t *testing.T, sender, receiver *client) {
	t.Helper()
	sender.StopRing()
	var ends [2]RingReply
	waitFor(t, "the end of the transfer", func() error {
		ends = [2]RingReply{sender.RingState(), receiver.RingState()}
		if !ends[0].Done || !ends[1].Done {
			return fmt.Errorf("sent %d, received %d", ends[0].Bytes, ends[1].Bytes)
		}
		return nil
	})
	if ends[0].Bytes != ends[1].Bytes || string(ends[0].Sum) != string(ends[1].Sum) {
		t.Fatalf("sent %d bytes with sum %x, received %d with %x", ends[0].Bytes, ends[0].Sum, ends[1].Bytes, ends[1].Sum)
	}
}

// A ring is a client's end of a connection.
type ring struct {
	own, peer         []byte
	peerFD            int
	ownBell, peerBell int

	bytes atomic.Int64
	stop  atomic.Bool
	done  atomic.Bool
	sum   hash.Hash
	err   error // read after done
}

func word32(b []byte, off int) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&b[off])) }
func word64(b []byte, off int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&b[off])) }

// cursorWord is how a cursor, given as a count of all bytes so far, stands in a header.
func cursorWord(at int64, length int, flags byte) uint64 {
	var b [8]byte
	binary.NativeEndian.PutUint16(b[:], uint16(at/int64(length)))
	binary.NativeEndian.PutUint32(b[2:], uint32(at%int64(length)))
	b[7] = flags
	return binary.NativeEndian.Uint64(b[:])
}

// parseCursor is the reverse: the peer's cursor is at most a ring ahead of ours at from.
func parseCursor(word uint64, from int64, length int) (at int64, flags byte, err error) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], word)
	wrap, count := binary.NativeEndian.Uint16(b[:]), int64(binary.NativeEndian.Uint32(b[2:]))
	turn := from / int64(length)
	if wrap != uint16(turn) {
		turn++
	}
	at = turn*int64(length) + count
	if wrap != uint16(turn) || count >= int64(length) || at < from || at-from > int64(length) {
		return 0, 0, fmt.Errorf("cursor with wrap %d and count %d is not within a ring after %d", wrap, count, from)
	}
	return at, b[7], nil
}

// setWord stores a header word in the peer's DMB and wakes the peer's field if it sleeps.
func (r *ring) setWord(off int, w uint64, field int) error {
	if r.peer != nil {
		word64(r.peer, off).Store(w)
	} else if err := r.pwriteWord(off, binary.NativeEndian.AppendUint64(nil, w)); err != nil {
		return err
	}
	state := word32(r.own, offWait)
	for {
		old := state.Load()
		how := fieldOf(old, field)
		if how == 0 {
			return nil
		}
		if !state.CompareAndSwap(old, withField(old, field, 0)) {
			continue
		}
		if how == sleepsOnWord {
			word32(r.peer, offSequence).Add(1)
			const futexWake = 1
			unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&r.peer[offSequence])), futexWake, math.MaxInt32, 0, 0, 0)
			return nil
		}
		if _, err := unix.Write(r.peerBell, []byte{1}); err != nil && err != unix.EAGAIN {
			return fmt.Errorf("ringing the bell: %w", err)
		}
		return nil
	}
}

var pwriteFence atomic.Uint32

func (r *ring) pwriteWord(off int, b []byte) error {
	if _, err := unix.Pwrite(r.peerFD, b, int64(off)); err != nil {
		return fmt.Errorf("pwrite of the word at %d: %w", off, err)
	}
	pwriteFence.Add(1)
	return nil
}

func fieldOf(state uint32, field int) byte {
	return binary.NativeEndian.AppendUint32(nil, state)[field]
}

func withField(state uint32, field int, v byte) uint32 {
	b := binary.NativeEndian.AppendUint32(nil, state)
	b[field] = v
	return binary.NativeEndian.Uint32(b)
}

// sleep waits until there is news, as section 1.4 says. Here only one field of an end ever sleeps.
func (r *ring) sleep(field int, news func() bool) error {
	announce := func(v byte) error {
		if r.peer != nil {
			word32(r.peer, offWait).Store(withField(0, field, v))
			return nil
		}
		return r.pwriteWord(offWait, binary.NativeEndian.AppendUint32(nil, withField(0, field, v)))
	}
	const futexWait, second = 0, 1000
	if r.peer != nil {
		s := word32(r.own, offSequence).Load()
		announce(sleepsOnWord)
		if !news() {
			ts := unix.NsecToTimespec(second * 1e6)
			unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&r.own[offSequence])), futexWait, uintptr(s), uintptr(unsafe.Pointer(&ts)), 0, 0)
		}
		return announce(0)
	}
	var rings [64]byte
	unix.Read(r.ownBell, rings[:])
	if err := announce(sleepsOnBell); err != nil {
		return err
	}
	if !news() {
		unix.Poll([]unix.PollFd{{Fd: int32(r.ownBell), Events: unix.POLLIN}}, second)
	}
	return announce(0)
}

// put writes payload at a place of the peer's ring, in two pieces where it wraps.
func (r *ring) put(at int64, length int, p []byte) error {
	for len(p) > 0 {
		off := int(at % int64(length))
		n := min(len(p), length-off)
		if r.peer != nil {
			copy(r.peer[offRing+off:], p[:n])
		} else if _, err := unix.Pwrite(r.peerFD, p[:n], int64(offRing+off)); err != nil {
			return fmt.Errorf("pwrite: %w", err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// send sends random bytes until it is stopped. Both DMBs have one size.
func (r *ring) send(seed int64) error {
	length := len(r.own) - offRing
	random := make([]byte, 1<<20+4099) // no multiple of anything, so that a lost or doubled piece shows
	rand.New(rand.NewSource(seed)).Read(random)
	var sent, read int64
	look := func() (err error) {
		read, _, err = parseCursor(word64(r.own, offConsumer).Load(), read, length)
		return err
	}
	for !r.stop.Load() {
		if err := look(); err != nil {
			return err
		}
		room := int64(length) - (sent - read)
		if room == 0 {
			before := read
			if err := r.sleep(writerField, func() bool { return look() != nil || read != before }); err != nil {
				return err
			}
			continue
		}
		from := int(sent % int64(len(random)))
		p := random[from:min(from+int(min(room, 1<<14)), len(random))]
		if err := r.put(sent, length, p); err != nil {
			return err
		}
		r.sum.Write(p)
		sent += int64(len(p))
		if err := r.setWord(offProducer, cursorWord(sent, length, 0), readerField); err != nil {
			return err
		}
		r.bytes.Store(sent)
	}
	return r.setWord(offConsumer, cursorWord(0, length, doneWriting), readerField)
}

// receive receives until the sender says that it has done.
func (r *ring) receive() error {
	length := len(r.own) - offRing
	var read int64
	for {
		// The flag first: what was sent before it is there once it is.
		_, flags, err := parseCursor(word64(r.own, offConsumer).Load(), 0, length)
		if err != nil {
			return err
		}
		sent, _, err := parseCursor(word64(r.own, offProducer).Load(), read, length)
		if err != nil {
			return err
		}
		if sent == read {
			if flags&doneWriting != 0 {
				return nil
			}
			before := word64(r.own, offProducer).Load()
			news := func() bool {
				return word64(r.own, offProducer).Load() != before || word64(r.own, offConsumer).Load() != cursorWord(0, length, 0)
			}
			if err := r.sleep(readerField, news); err != nil {
				return err
			}
			continue
		}
		for read < sent {
			off := int(read % int64(length))
			n := min(int(sent-read), length-off)
			r.sum.Write(r.own[offRing+off:][:n])
			read += int64(n)
		}
		if err := r.setWord(offConsumer, cursorWord(read, length, 0), writerField); err != nil {
			return err
		}
		r.bytes.Store(read)
	}
}

func (s *Calls) startRing(a RingArgs, run func(*ring) error) (err error) {
	r := &ring{peerFD: a.PeerFD, ownBell: a.OwnBell, peerBell: a.PeerBell, sum: sha256.New()}
	if r.own, err = s.mapping(a.Own); err != nil {
		return err
	}
	if a.Peer != 0 {
		if r.peer, err = s.mapping(a.Peer); err != nil {
			return err
		}
	}
	theRing.Store(r)
	go func() {
		r.err = run(r)
		r.done.Store(true)
	}()
	return nil
}

// theRing is the client's transfer; it has one at a time.
var theRing atomic.Pointer[ring]

func (s *Calls) StartSend(a RingArgs, _ *RingReply) error {
	return s.startRing(a, func(r *ring) error { return r.send(a.Seed) })
}

func (s *Calls) StartReceive(a RingArgs, _ *RingReply) error {
	return s.startRing(a, (*ring).receive)
}

func (s *Calls) StopSend(RingArgs, *RingReply) error {
	theRing.Load().stop.Store(true)
	return nil
}

func (s *Calls) RingState(_ RingArgs, reply *RingReply) error {
	r := theRing.Load()
	reply.Done = r.done.Load()
	reply.Bytes = r.bytes.Load()
	if reply.Done {
		reply.Sum = r.sum.Sum(nil)
		if r.err != nil {
			reply.Err = r.err.Error()
		}
	}
	return nil
}
