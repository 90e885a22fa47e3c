// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

// TestHostileWords has a peer write what it must not into the victim's header. The victim's connection ends with EPROTO, the
// peer hears of an abort, and nothing else is touched.
func TestHostileWords(t *testing.T) {
	const ring = ringSize - smc.CDCLen
	inModes(t, func(t *testing.T, d *daemon) {
		for _, test := range []struct {
			name  string
			prod  uint64
			cons  uint64
			wait  [2]dmb.Wait
			sound bool // allowed: the connection lives
		}{
			{name: "producer outside the ring", prod: smc.ProducerWord(smc.Cursor{Count: ring})},
			{name: "producer far outside", prod: smc.ProducerWord(smc.Cursor{Count: 1<<32 - 1})},
			{name: "producer went backwards", prod: smc.ProducerWord(smc.Cursor{Count: 5})},
			{name: "producer a ring too far", prod: smc.ProducerWord(smc.Cursor{Wrap: 1, Count: 11})},
			{name: "producer two rings on", prod: smc.ProducerWord(smc.Cursor{Wrap: 2, Count: 10})},
			{name: "producer wrap went backwards", prod: smc.ProducerWord(smc.Cursor{Wrap: 65535, Count: 10})},
			{name: "producer with flags", prod: smc.ConsumerWord(smc.Cursor{Count: 10}, 0xFF, 0xFF), sound: true},
			{name: "consumer outside the ring", cons: smc.ConsumerWord(smc.Cursor{Count: ring}, 0, 0)},
			{name: "consumer read what was not sent", cons: smc.ConsumerWord(smc.Cursor{Count: 11}, 0, 0)},
			{name: "consumer a ring on", cons: smc.ConsumerWord(smc.Cursor{Wrap: 1}, 0, 0)},
			{name: "consumer wrap went backwards", cons: smc.ConsumerWord(smc.Cursor{Wrap: 65535}, 0, 0)},
			{name: "every producer flag", cons: smc.ConsumerWord(smc.Cursor{}, 0xFF, 0), sound: true},
			{name: "every unknown state flag", cons: smc.ConsumerWord(smc.Cursor{}, 0, 0x1F), sound: true},
			{name: "unknown waits", wait: [2]dmb.Wait{3, 255}, sound: true},
			{name: "waits that are no sleep", wait: [2]dmb.Wait{dmb.OnFutex, dmb.OnBell}, sound: true},
		} {
			t.Run(test.name, func(t *testing.T) {
				victim, peer := d.mustPair(t, ringSize)
				other, otherPeer := d.mustPair(t, ringSize)
				mustWrite(t, peer, make([]byte, 10))
				mustRead(t, victim, make([]byte, 10))
				mustWrite(t, victim, make([]byte, 10))
				into := peer.link.Peer
				if test.prod != 0 {
					into.StoreProducer(test.prod)
				}
				if test.cons != 0 {
					into.StoreConsumer(test.cons)
				}
				for s, w := range test.wait {
					into.StoreWaiting(dmb.Side(s), w)
				}
				if test.sound {
					mustWrite(t, victim, []byte("x"))
				} else {
					wantRead(t, victim, syscall.EPROTO)
					wantWrite(t, victim, syscall.EPROTO)
					_, _, flags := smc.ParseConsumerWord(peer.link.Own.Consumer())
					if flags&smc.PeerConnAbort == 0 {
						t.Errorf("the peer was told %#x", flags)
					}
				}
				mustWrite(t, other, []byte("fine"))
				mustRead(t, otherPeer, []byte("fine"))
			})
		}
	})
}

// A state flag stays set: one that is withdrawn is a broken contract.
func TestHostileWithdrawnFlag(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		victim, peer := d.mustPair(t, ringSize)
		if err := peer.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, victim, []byte("seen"))
		peer.link.Peer.StoreConsumer(smc.ConsumerWord(smc.Cursor{}, 0, 0))
		wantWrite(t, victim, syscall.EPROTO)
	})
}

// A peer can clear what it was told of a sleep and wake nobody. That is its own loss: whoever is on the victim's side still
// reaches the sleeper.
func TestHostileSilence(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		victim, peer := d.mustPair(t, ringSize)
		errs := make(chan error, 1)
		victim.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		go func() { _, err := victim.Read(make([]byte, 1)); errs <- err }()
		waitFor(t, "the sleep", func() bool { return peer.link.Own.Waiting(dmb.Reader) != dmb.Awake })
		peer.link.Own.ClearWaiting(dmb.Reader, peer.link.Own.Waiting(dmb.Reader))
		if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// FuzzHostilePeer lets a peer write anything into a header while the victim reads and writes. Nothing but an error may come
// of it, and never more bytes than a ring holds.
func FuzzHostilePeer(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 5, 0, 0, 0, 0x80, 0x40, 0, 0, 0, 200, 0, 0, 0, 0, 0})
	f.Add([]byte{2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		d := daemons[0].started(t)
		victim, peer := d.mustPair(t, 4096)
		buf := make([]byte, 8192)
		for len(ops) >= 9 && len(ops) <= 20*9 {
			word := binary.LittleEndian.Uint64(ops[1:])
			switch ops[0] % 3 {
			case 0:
				peer.link.Peer.StoreProducer(word)
			case 1:
				peer.link.Peer.StoreConsumer(word)
			case 2:
				peer.link.Peer.StoreWaiting(dmb.Side(word%2), dmb.Wait(word>>8))
			}
			victim.SetDeadline(time.Now().Add(time.Millisecond))
			if n, _ := victim.Read(buf); n > 4096-smc.CDCLen {
				t.Fatalf("%d bytes read at once", n)
			}
			victim.Write(buf[:ops[1]])
			ops = ops[9:]
		}
	})
}
