// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"sync"
	"syscall"

	"github.com/ismfs/ismfs/device"
)

// snapshots bounds the memory of what open controls hold. A list of connections can be megabytes long, and who keeps it open
// a thousand times would have them all from the daemon.
type snapshots struct {
	mu     sync.Mutex
	perUID map[uint32]int
	turns  map[int64]*turn
}

// A turn is one uid's right to have a list made. Lists of one uid are made one after the other, so that it takes the memory and
// the time for one only, and nobody else waits for it.
type turn struct {
	sync.Mutex
	users int // who have it or wait for it
}

// takeTurn waits for the caller's turn to have a list made, and returns what ends it. All who are privileged share one.
func (s *snapshots) takeTurn(d *device.Device, c device.Caller) (done func()) {
	key := int64(c.UID)
	if d.CheckPrivileged(c) == nil {
		key = -1
	}
	s.mu.Lock()
	if s.turns == nil {
		s.turns = make(map[int64]*turn)
	}
	t := s.turns[key]
	if t == nil {
		t = new(turn)
		s.turns[key] = t
	}
	t.users++
	s.mu.Unlock()
	t.Lock()
	return func() {
		t.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(s.turns, key)
		}
	}
}

const (
	// A snapshot up to this size is not counted: what can be open at once bounds them.
	smallSnapshot = 4096
	// mostSnapshots is what one uid can hold in bytes, unless it is privileged: some 200,000 lines of conns.
	mostSnapshots = 64 << 20
)

// take counts a snapshot of n bytes and returns what gives it back. Error: ENOMEM.
func (s *snapshots) take(d *device.Device, c device.Caller, n int) (release func(), err error) {
	if n <= smallSnapshot || d.CheckPrivileged(c) == nil {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.perUID[c.UID]+n > mostSnapshots {
		return nil, syscall.ENOMEM
	}
	if s.perUID == nil {
		s.perUID = make(map[uint32]int)
	}
	s.perUID[c.UID] += n
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.perUID[c.UID] -= n; s.perUID[c.UID] == 0 {
			delete(s.perUID, c.UID)
		}
	}, nil
}
