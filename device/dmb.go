// SPDX-License-Identifier: Apache-2.0

package device

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Offsets in a DMB that the device itself uses (docs/dmb-format.md).
const offSignalSequence = 24

// doorbellPageSize is the size by which a doorbell page is known: both sides map it, whatever dmb_copy says.
const doorbellPageSize = PageSize

// A DMB is one registered buffer. Its exported fields never change.
type DMB struct {
	Token    Token
	Leased   bool   // to the handle that registered it; else made from a shell, and there until it is removed
	Owner    Caller // uid and gid of who registered it
	OwnerID  uint32 // the owner's process id on this device, 0 if not leased
	Sequence uint32 // its number among the DMBs of the device
	Made     time.Time

	dev      *Device
	who      Principal // in whose name it was registered, if not leased
	process  *Process  // its owner, if leased
	peer     *Process  // who has attached
	copyMode bool      // dmb_copy at registration
	kind     Type      // dmb_type at registration

	// The device's lock protects what follows.
	mem       *memory // nil: no size and not open
	size      int64   // 0: not set
	named     bool    // to be found in the table
	owned     bool    // the owner's reference is there
	taken     bool    // the place of the peer is, or was, taken
	attached  int     // handles of peers
	open      int     // handles that keep the memory: owners' and peers'
	withdrawn bool    // by the device, at active 0
	pages     pageMeasure
}

// refs is the kernel's reference count: the owner and the attached peer, one each.
func (m *DMB) refs() uint32 {
	if m.withdrawn {
		return 0
	}
	var n uint32
	if m.owned {
		n++
	}
	if m.attached > 0 {
		n++
	}
	return n
}

// merged reports whether peers map this DMB (dmb_copy 0) rather than write it.
func (m *DMB) merged() bool { return !m.copyMode || m.size == doorbellPageSize }

// DMBInfo is a snapshot of what changes about a DMB.
type DMBInfo struct {
	Size      int64  // bytes, 0 before it is set
	Populated int64  // bytes backed by pages
	Refs      uint32 // owner and attached peer
	Gone      bool   // it has neither a name nor a handle
	Copy      bool   // peers write it instead of mapping it
	Type      Type
	OwnerPID  int // 0: not leased, or gone
	PeerPID   int // 0: nobody attached
}

// Info describes the DMB now.
func (m *DMB) Info() DMBInfo {
	m.dev.mu.Lock()
	defer m.dev.mu.Unlock()
	info := DMBInfo{Size: m.size, Refs: m.refs(), Gone: !m.named && m.open == 0, Copy: !m.merged(), Type: m.kind}
	if m.process != nil && m.owned {
		info.OwnerPID = m.process.PID
	}
	if m.peer != nil && m.attached > 0 {
		info.PeerPID = m.peer.PID
	}
	if m.mem != nil && m.size != 0 {
		info.Populated = m.mem.populated()
	}
	return info
}

// PageSize returns the size in bytes of the pages that back most of the DMB, 4096 until it is populated. It may look
// into the page tables for that, at most every ten seconds: some 70 µs for 64 KiB and 400 µs for 1 MiB of base pages.
func (m *DMB) PageSize() int64 {
	m.dev.mu.Lock()
	defer m.dev.mu.Unlock()
	now := time.Now()
	switch {
	case m.kind != Physical || m.mem == nil || m.size == 0:
		return PageSize
	case m.size < hugePage && !m.dev.smallFolios.possible(now):
		return PageSize
	case m.mem.populated() < m.size:
		return PageSize
	}
	return m.pages.of(m.mem, now)
}

// RegisterDMB registers a DMB under a token that the caller has drawn, and opens it for its owner; [DMB.SetSize] gives it
// memory. A leased DMB lives as long as this handle; one that is not leased is opened by its owner's principal as often as
// it likes and lives until [Device.UnregisterDMB].
//
// Errors: EINVAL the token is 0, EEXIST the token is or was in use, ENODEV the device is switched off or draining, ENOSPC
// the table is full, ENOMEM the memory limits are reached, EPERM a caller that the daemon cannot see.
func (d *Device) RegisterDMB(c Caller, t Token, lease bool) (*Handle, error) {
	if t == 0 {
		return nil, unix.EINVAL
	}
	var (
		pid int
		who Principal
		err error
	)
	if lease {
		pid, err = c.process()
	} else {
		who, err = c.principal()
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != Active {
		return nil, unix.ENODEV
	}
	if d.dmbs[t] != nil || d.retired.has(t) {
		return nil, unix.EEXIST
	}
	m := &DMB{
		Token: t, Leased: lease, Owner: c, Sequence: d.nextSequence(), Made: time.Now(),
		dev: d, who: who, copyMode: d.dmbCopy, kind: d.dmbType, named: true, owned: true,
	}
	if lease {
		if m.process, err = d.processOf(c, pid); err != nil {
			return nil, err
		}
		m.OwnerID = m.process.ID
	}
	if err := d.quota.addDMB(c.UID); err != nil {
		return nil, err
	}
	h, err := m.openOwner()
	if err != nil {
		d.quota.removeDMB(c.UID)
		return nil, err
	}
	d.dmbs[t] = m
	d.all[m] = struct{}{}
	if m.process != nil {
		m.process.dmbs[m] = struct{}{}
		h.process = m.process
	}
	return h, nil
}

// nextSequence numbers DMBs from 16 on: the low numbers are the tree's own inodes.
func (d *Device) nextSequence() uint32 {
	if d.lastSequence++; d.lastSequence < firstSequence || d.lastSequence == math.MaxUint32 {
		d.lastSequence = firstSequence
	}
	return d.lastSequence
}

const firstSequence = 16

// SetSize gives a DMB its size, once, in bytes: a multiple of 4096. Asking for the size that it has is no error.
//
// Errors: EPERM not the owner, or another size is set already, EINVAL not a multiple of 4096 or 0, EFBIG larger than the
// mount allows, ENOMEM the memory limits are reached, ENODEV the device is off.
func (m *DMB) SetSize(c Caller, size int64) error {
	isOwner, err := m.ownerCheck(c)
	if err != nil {
		return err
	}
	m.dev.mu.Lock()
	defer m.dev.mu.Unlock()
	switch {
	case !isOwner():
		return unix.EPERM
	case m.size != 0 && m.size == size:
		return nil
	case m.size != 0:
		return unix.EPERM
	case size > m.dev.quota.limits.MaxDMBSize:
		return unix.EFBIG
	case size <= 0 || size%PageSize != 0:
		return unix.EINVAL
	case m.withdrawn || !m.named:
		return unix.ENODEV
	}
	if err := m.dev.fixMemory(&m.mem, m.Owner.UID, size); err != nil {
		return err
	}
	m.size = size
	return nil
}

// ownerCheck looks up what tells whether the caller is the owner, and returns the check itself, to be made with the lock
// held: of a leased DMB only the process that registered it is the owner, of another all of its principal are.
func (m *DMB) ownerCheck(c Caller) (func() bool, error) {
	if m.Leased {
		pid, err := c.process()
		return func() bool { return pid == m.process.PID && !m.process.exited() }, err
	}
	who, err := c.principal()
	return func() bool { return who.mayTouch(m.who) }, err
}

// belongsTo reports whether the DMB is the caller's own: of a leased one it is the owner or could ptrace it as that one is
// now, another one it could have registered. The lock is held.
func (m *DMB) belongsTo(pid int, who Principal) bool {
	if m.Leased {
		return m.process.belongsTo(pid, who)
	}
	return who.mayTouch(m.who)
}

// UnregisterDMB takes a DMB out of the table: nobody finds it any more, and it is freed when its last handle closes.
// Errors: EINVAL no such DMB, EPERM not the owner's principal.
func (d *Device) UnregisterDMB(c Caller, t Token) error {
	m := d.LookupDMB(t)
	if m == nil {
		return unix.EINVAL
	}
	pid, who, err := c.identify()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !m.belongsTo(pid, who) && !d.privileged(who) {
		return unix.EPERM
	}
	m.unregister()
	return nil
}

// unregister drops the name and the owner's reference, tells both sides and frees what nobody holds. The lock is held.
func (m *DMB) unregister() {
	if m.named {
		m.named = false
		delete(m.dev.dmbs, m.Token)
		m.dev.retired.add(m.Token)
	}
	if m.owned {
		m.owned = false
		m.tell()
	}
	m.freeIfUnused()
}

// freeIfUnused gives back all that a DMB has once it has neither a name nor a handle. The lock is held.
func (m *DMB) freeIfUnused() {
	if m.named || m.owned || m.open > 0 {
		return
	}
	d := m.dev
	if _, ok := d.all[m]; !ok {
		return
	}
	delete(d.all, m)
	for _, p := range []*Process{m.process, m.peer} {
		if p != nil {
			delete(p.dmbs, m)
		}
	}
	d.quota.removeDMB(m.Owner.UID)
	d.dropMemory(&m.mem)
}

// tell moves the DMB's signal sequence and the device word of its two processes, so that whoever sleeps looks at the
// references again. The lock is held.
func (m *DMB) tell() {
	if m.mem != nil && m.size != 0 && m.open > 0 {
		if err := m.mem.signal(offSignalSequence); err != nil {
			m.dev.log.Debug("cannot signal a DMB", "token", m.Token, "err", err)
		}
	}
	for _, p := range []*Process{m.process, m.peer} {
		if p != nil && p.block != nil {
			p.block.tell(m.dev)
		}
	}
}
