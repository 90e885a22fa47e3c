// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A side is one process of a pair and what it has of the DMB between them.
type side struct {
	*client
	fd, mapping, block int
}

// pairUp has an owner register a DMB and a peer attach to it; both have procs blocks and each has stored a word of its own.
func pairUp(t *testing.T, d *device, token string) (owner, peer side) {
	t.Helper()
	const size = 64 << 10
	owner.client, peer.client = startClient(t), startClient(t)
	_, owner.block = owner.Block(d)
	_, peer.block = peer.Block(d)
	owner.fd, owner.mapping = owner.Register(d, token, size)
	peer.fd = peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
	peer.mapping = peer.MustMap(peer.fd, size)
	owner.store(100, "of the owner")
	peer.store(200, "of the peer")
	if n := owner.MustStat(owner.fd).Nlink; n != 2 {
		t.Fatalf("with both there st_nlink is %d", n)
	}
	return owner, peer
}

func (s side) store(off int64, text string) {
	s.t.Helper()
	if err := s.Store(s.mapping, []byte(text), off); err != nil {
		s.t.Fatal(err)
	}
}

// survive checks that what both stored is still there and that the survivor can go on, mapped and by its handle.
func (s side) survive() {
	s.t.Helper()
	s.store(300, "goes on")
	if err := s.Pwrite(s.fd, []byte("by its handle"), 8192); err != nil {
		s.t.Fatalf("pwrite: %v", err)
	}
	for _, want := range []struct {
		off  int64
		text string
	}{{100, "of the owner"}, {200, "of the peer"}, {300, "goes on"}, {8192, "by its handle"}} {
		for how, read := range map[string]func() ([]byte, error){
			"mapping": func() ([]byte, error) { return s.Load(s.mapping, len(want.text), want.off) },
			"pread":   func() ([]byte, error) { return s.Pread(s.fd, len(want.text), want.off) },
		} {
			if got, err := read(); err != nil || !bytes.Equal(got, []byte(want.text)) {
				s.t.Errorf("after the death, by %s: %q, %v; want %q", how, got, err, want.text)
			}
		}
	}
}

// told runs what ends the other side, and checks that the survivor hears of it in each way there is: a sleeper wakes, the
// DMB's sequence and its own block's device word have moved.
func (s side) told(end func()) {
	s.t.Helper()
	sleeper := s.Sleeper(s.mapping, offSequence)
	sequence, word := s.Word(s.mapping, offSequence), s.Word(s.block, offDeviceWord)
	end()
	wantWoken(s.t, sleeper)
	waitFor(s.t, "the words to move", func() error {
		if s.Word(s.mapping, offSequence) == sequence || s.Word(s.block, offDeviceWord) == word {
			return fmt.Errorf("sequence and device word are %d and %d", sequence, word)
		}
		return nil
	})
}

// alone waits until fstat says that the other reference has gone.
func (s side) alone() {
	s.t.Helper()
	waitFor(s.t, "st_nlink to be 1", func() error {
		if n := s.MustStat(s.fd).Nlink; n != 1 {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
}

// TestDeathOfOne kills one side of a pair. A child that inherited the dead one's handle keeps its reference, as a fork would
// want it to, but the DMB can no longer be found: its process has gone.
func TestDeathOfOne(t *testing.T) {
	d := mountDevice(t)
	for i, row := range []struct {
		name      string
		ownerDies bool
		inherited bool
	}{
		{"owner", true, false},
		{"owner whose child has the handle", true, true},
		{"peer", false, false},
		{"peer whose child has the handle", false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			token := fmt.Sprintf("00000000000d0e%02x", i)
			owner, peer := pairUp(t, d, token)
			dead, survivor := peer, owner
			if row.ownerDies {
				dead, survivor = owner, peer
			}
			holder := 0
			if row.inherited {
				holder = dead.Holder(dead.fd)
			}
			survivor.told(dead.Kill)
			if row.inherited {
				if n := survivor.MustStat(survivor.fd).Nlink; n != 2 {
					t.Errorf("while a child has the handle st_nlink is %d, want 2", n)
				}
				survivor.told(func() { killPID(t, holder) })
			}
			survivor.alone()
			survivor.survive()
			d.WantCount(1) // the survivor holds it
			other := startClient(t)
			want := map[bool]error{true: unix.ENOENT, false: unix.EBUSY}[row.ownerDies]
			if _, err := other.Open(d.Path("dmbs", token), unix.O_RDWR); err != want {
				t.Errorf("a third process's open: %v, want %v", err, want)
			}
			if _, err := other.Open(d.Path("dmbs", token), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); err != unix.EEXIST {
				t.Errorf("registering the token again: %v, want EEXIST", err)
			}
			if err := survivor.Close(survivor.fd); err != nil {
				t.Error(err)
			}
			d.WantCount(0)
			survivor.Kill()
			other.Kill()
			d.WantNothing()
		})
	}
}

// TestDeathOfBoth kills both sides: nothing is left, unless a child holds a handle, and then nothing once it has gone too.
func TestDeathOfBoth(t *testing.T) {
	d := mountDevice(t)
	for i, row := range []struct {
		name             string
		byOwner, byPeer  bool // whose child holds its handle
		peerDiesFirst    bool
		countAfterDeaths int
	}{
		{"both", false, false, false, 0},
		{"peer first", false, false, true, 0},
		{"owner's child has the handle", true, false, false, 1},
		{"peer's child has the handle", false, true, false, 1},
		{"children of both have handles", true, true, true, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			token := fmt.Sprintf("00000000000d0f%02x", i)
			owner, peer := pairUp(t, d, token)
			var holders []int
			if row.byOwner {
				holders = append(holders, owner.Holder(owner.fd))
			}
			if row.byPeer {
				holders = append(holders, peer.Holder(peer.fd))
			}
			first, second := owner, peer
			if row.peerDiesFirst {
				first, second = peer, owner
			}
			first.Kill()
			second.Kill()
			waitFor(t, "the name to go", func() error {
				if fileExists(d.Path("dmbs", token)) || fileExists(d.Path("bells", token)) {
					return fmt.Errorf("the DMB or its bell is still found")
				}
				return nil
			})
			d.WantCount(row.countAfterDeaths)
			for _, pid := range holders {
				killPID(t, pid)
			}
			d.WantCount(0)
			d.WantNothing()
		})
	}
}

// TestDeathOfManyOwners: one process with many DMBs, as a server has, frees them all when it dies.
func TestDeathOfManyOwners(t *testing.T) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t)
	const n = 100
	for i := range n {
		token := fmt.Sprintf("00000000000da0%02x", i)
		owner.Register(d, token, 16<<10)
		if i%2 == 0 {
			peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
		}
	}
	d.WantCount(n)
	owner.Kill()
	d.WantCount(n / 2) // those that the peer holds
	peer.Kill()
	d.WantNothing()
}
