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
