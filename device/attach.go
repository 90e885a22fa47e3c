// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Access is what a handle may do, as in open(2).
type Access int

const (
	ReadOnly Access = iota
	WriteOnly
	ReadWrite
)

// role is what a handle is to its DMB.
type role int

const (
	roleOwner   role = iota // holds the memory; for a leased DMB, holds the lease
	rolePeer                // holds the memory and a reference
	roleInspect             // holds nothing: a look by who could look anyway
)

// A Handle is one open of a DMB.
type Handle struct {
	DMB     *DMB
	role    role
	process *Process
	look    *look // of roleInspect
	fd      int
}

// FD returns the memfd behind the handle, for passthrough. It stays open as long as the handle.
func (h *Handle) FD() int { return h.fd }

// openOwner opens for the owner. Without a size yet the memory is a reservation, given back when the last handle closes.
// The lock is held.
func (m *DMB) openOwner() (*Handle, error) {
	if err := m.dev.holdMemory(&m.mem, m.Owner.UID, m.dev.quota.limits.MaxDMBSize); err != nil {
		return nil, err
	}
	m.open++
	return &Handle{DMB: m, role: roleOwner, fd: m.mem.fd}, nil
}

// AttachDMB opens a registered DMB. Who opens decides what the open is:
//
//   - of a DMB that is not leased, every open by its owner's principal is the owner's;
//   - a read-only open by the owner's principal, or by who is privileged, is a look and counts as nothing;
//   - every other open attaches a peer. A leased DMB has one in all its life, since a mapping can outlive its handle. In
//     copy mode a peer writes and does not map: it opens write-only.
//
// Errors: EPERM a caller that the daemon cannot see, ENODEV the device is off, ENOENT the DMB is gone, EAGAIN it has no size
// yet, EACCES copy mode and not write-only, EBUSY a peer is or was attached, ENFILE too many looks.
func (d *Device) AttachDMB(c Caller, m *DMB, a Access) (*Handle, error) {
	pid, err := c.process()
	if err != nil {
		return nil, err
	}
	var who Principal
	if a == ReadOnly || !m.Leased { // for the peer of a leased DMB it does not matter, and costs 10 µs
		if who, err = c.principal(); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !m.Leased && m.belongsTo(pid, who):
		if !m.named {
			return nil, unix.ENOENT
		}
		return m.openOwner()
	case a == ReadOnly && (m.belongsTo(pid, who) || d.privileged(who)):
		return m.inspect(who)
	}
	if err := m.mayAttach(a); err != nil {
		return nil, err
	}
	h := &Handle{DMB: m, role: rolePeer, fd: m.mem.fd}
	if h.process, err = d.processOf(c, pid); err != nil {
		return nil, fmt.Errorf("attach to DMB %v: %w", m.Token, err)
	}
	m.taken = true
	m.attached++
	m.open++
	m.peer = h.process
	h.process.dmbs[m] = struct{}{}
	return h, nil
}

// mayAttach decides whether one more peer may come. The lock is held.
func (m *DMB) mayAttach(a Access) error {
	switch {
	case m.dev.state == Inactive || m.withdrawn:
		return unix.ENODEV
	case !m.named || !m.owned:
		return unix.ENOENT
	case m.size == 0:
		return unix.EAGAIN
	case !m.merged() && a != WriteOnly:
		return unix.EACCES
	case m.Leased && m.taken:
		return unix.EBUSY
	}
	return nil
}

// inspect opens for a look. The lock is held.
func (m *DMB) inspect(who Principal) (*Handle, error) {
	if m.mem == nil || m.size == 0 {
		return nil, unix.EAGAIN
	}
	l, err := m.dev.newLook(m.mem, who)
	if err != nil {
		return nil, err
	}
	return &Handle{DMB: m, role: roleInspect, look: l, fd: l.fd}, nil
}

// DetachDMB closes a handle. The owner's of a leased DMB unregisters it.
func (d *Device) DetachDMB(h *Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.role == roleInspect {
		d.endLook(h.look)
		return
	}
	m := h.DMB
	m.open--
	switch {
	case h.role == rolePeer:
		if h.process != m.process {
			delete(h.process.dmbs, m)
		}
		if m.attached--; m.attached == 0 {
			m.tell()
		}
		m.freeIfUnused()
	case m.Leased:
		m.unregister()
	case m.open == 0 && m.size == 0:
		d.dropMemory(&m.mem) // a reservation lasts no longer than the handles
		m.freeIfUnused()
	default:
		m.freeIfUnused()
	}
}

// MoveData writes into a DMB for its peer and, with signal, wakes the owner: the kernel's move_data, for callers inside the
// daemon. Programs do the same with a store or a pwrite, which the daemon never sees.
// Errors: EINVAL no such DMB, or bytes outside it.
func (d *Device) MoveData(t Token, signal bool, off int64, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.dmbs[t]
	if m == nil || off < 0 || off > m.size || int64(len(data)) > m.size-off {
		return unix.EINVAL
	}
	for len(data) > 0 {
		n, err := unix.Pwrite(m.mem.fd, data, off)
		if err != nil {
			return fmt.Errorf("write to DMB %v: %w", t, err)
		}
		data, off = data[n:], off+int64(n)
	}
	if signal {
		return m.mem.signal(offSignalSequence)
	}
	return nil
}
