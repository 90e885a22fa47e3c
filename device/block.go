// SPDX-License-Identifier: Apache-2.0

package device

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
)

// A block is the procs block of one process. The device's lock protects it.
type block struct {
	process *Process
	uid     uint32
	made    time.Time

	mem  *memory // nil: no size and not open
	size int64   // 0: not set
	open int     // handles
	find bool    // the device may look at the process's descriptors

	last    counters // as they were last accepted
	lastAt  time.Time
	liar    string // why its numbers are not accepted any more, empty if they are
	removed bool
}

// A BlockHandle is one open of a procs block.
type BlockHandle struct {
	block *block
	look  *look // not nil: read-only, by another process
	fd    int
}

// FD returns the memfd behind the handle, for passthrough. It stays open as long as the handle.
func (h *BlockHandle) FD() int { return h.fd }

// BlockInfo is a snapshot of a procs block.
type BlockInfo struct {
	ID        uint32
	PID       int
	UID       uint32
	Size      int64
	Populated int64
	Made      time.Time
}

// Block describes the procs block with an id. It exists once its process has opened it. ok is false if there is none, or
// none that is the caller's to see: its own process's, its own principal's, or any if it is privileged.
func (d *Device) Block(c Caller, id uint32) (info BlockInfo, ok bool) {
	pid, who, err := c.identify()
	if err != nil {
		return BlockInfo{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.processes.byID[id]
	if p == nil || p.block == nil || !d.maySee(p, pid, who) {
		return BlockInfo{}, false
	}
	return p.block.info(), true
}

// ListBlocks describes the procs blocks that are the caller's to see.
func (d *Device) ListBlocks(c Caller) ([]BlockInfo, error) {
	pid, who, err := c.identify()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []BlockInfo
	for _, p := range d.processes.byID {
		if p.block != nil && d.maySee(p, pid, who) {
			list = append(list, p.block.info())
		}
	}
	return list, nil
}

// HasBlock reports whether there is a procs block with an id, without regard to who asks.
func (d *Device) HasBlock(id uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.processes.byID[id]
	return p != nil && p.block != nil
}

func (d *Device) maySee(p *Process, pid int, who Principal) bool {
	return d.privileged(who) || p.belongsTo(pid, who)
}

func (b *block) info() BlockInfo {
	i := BlockInfo{ID: b.process.ID, PID: b.process.PID, UID: b.uid, Size: b.size, Made: b.made}
	if b.mem != nil {
		i.Populated = b.mem.populated()
	}
	return i
}

// CreateBlock makes the procs block of the caller's own process and opens it.
// Errors: EPERM another process's id, EEXIST it is there already, ENOMEM the memory limits are reached.
func (d *Device) CreateBlock(c Caller, id uint32) (*BlockHandle, error) {
	pid, err := c.process()
	if err != nil {
		return nil, err
	}
	d.users.Enter() // without the lock: it may take a while
	h, err := d.createBlock(c, id, pid)
	if err != nil {
		d.users.Leave()
	}
	return h, err
}

func (d *Device) createBlock(c Caller, id uint32, pid int) (*BlockHandle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.processes.byID[id]
	if p == nil || p.PID != pid || p.exited() {
		return nil, unix.EPERM
	}
	if p.block != nil {
		return nil, unix.EEXIST
	}
	b := &block{process: p, uid: c.UID, made: time.Now()}
	h, err := b.openOwn(d)
	if err != nil {
		return nil, err
	}
	p.block = b
	return h, nil
}

// OpenBlock opens a procs block: for writing only by its own process, for reading by who may see it.
// Errors: ENOENT none that the caller may see, EACCES writing by another process, EAGAIN it has no size yet,
// ENFILE too many looks.
func (d *Device) OpenBlock(c Caller, id uint32, a Access) (*BlockHandle, error) {
	pid, who, err := c.identify()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.processes.byID[id]
	if p == nil || p.block == nil || !d.maySee(p, pid, who) {
		return nil, unix.ENOENT
	}
	b := p.block
	if p.PID == pid {
		return b.openOwn(d)
	}
	if a != ReadOnly {
		return nil, unix.EACCES
	}
	if b.size == 0 {
		return nil, unix.EAGAIN
	}
	l, err := d.newLook(b.mem, who)
	if err != nil {
		return nil, err
	}
	return &BlockHandle{block: b, look: l, fd: l.fd}, nil
}

// openOwn opens for the process itself. The lock is held.
func (b *block) openOwn(d *Device) (*BlockHandle, error) {
	if err := d.holdMemory(&b.mem, b.uid, procs.MaxLen); err != nil {
		return nil, err
	}
	b.open++
	return &BlockHandle{block: b, fd: b.mem.fd}, nil
}

// SetBlockSize gives a procs block its size, once, and writes its head.
// Errors: EPERM not its own process, or it has another size, EINVAL not a multiple of 4096 or 0, EFBIG over 4 MiB, ENOMEM.
func (d *Device) SetBlockSize(c Caller, id uint32, size int64) error {
	pid, err := c.process()
	if err != nil {
		return err
	}
	find := canFindSockets(pid)
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.processes.byID[id]
	if p == nil || p.block == nil || p.PID != pid || p.exited() {
		return unix.EPERM
	}
	b := p.block
	switch {
	case b.size == size && size != 0:
		return nil
	case b.size != 0:
		return unix.EPERM
	case size > procs.MaxLen:
		return unix.EFBIG
	case size <= 0 || size%PageSize != 0:
		return unix.EINVAL
	}
	if err := d.fixMemory(&b.mem, b.uid, size); err != nil {
		return err
	}
	b.size, b.find = size, find
	b.lastAt = time.Now()
	return b.writeHead(d)
}

// CloseBlock closes a handle.
func (d *Device) CloseBlock(h *BlockHandle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.look != nil {
		d.endLook(h.look)
		return
	}
	b := h.block
	if b.open--; b.open > 0 {
		return
	}
	if b.removed || b.size == 0 {
		d.dropMemory(&b.mem)
	}
}

// endBlock takes the last numbers of a process that has exited and lets its block go. The lock is held.
func (d *Device) endBlock(p *Process) {
	b := p.block
	if b == nil {
		return
	}
	d.stats.gone(d.readBlock(b))
	p.block = nil
	b.removed = true
	d.users.Leave()
	if b.open == 0 {
		d.dropMemory(&b.mem)
	}
}

// writeHead writes the head as the device's state has it. Each word is written by a call of its own, so none is seen half
// done.
func (b *block) writeHead(d *Device) error {
	for _, w := range []struct {
		off  int64
		size int
		v    uint64
	}{
		{procs.OffMagic, 4, procs.Magic},
		{procs.OffVersion, 4, procs.Version},
		{procs.OffID, 4, uint64(b.process.ID)},
		{procs.OffState, 4, uint64(d.state)},
		{procs.OffSettings, 4, uint64(d.settings())},
		{procs.OffEpoch, 8, d.epoch},
		{procs.OffDoes, 4, uint64(b.does())},
	} {
		var buf [8]byte
		if w.size == 4 {
			binary.NativeEndian.PutUint32(buf[:], uint32(w.v))
		} else {
			binary.NativeEndian.PutUint64(buf[:], w.v)
		}
		if _, err := unix.Pwrite(b.mem.fd, buf[:w.size], w.off); err != nil {
			return err
		}
	}
	return nil
}

// does returns what the device does for the process.
func (b *block) does() uint32 {
	if b.find {
		return procs.DoesFind
	}
	return 0
}

// stopFinding tells a process to say all of its connections itself: the daemon may not look at it any more, as when it has changed
// its uid.
func (d *Device) stopFinding(p *Process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := p.block; b != nil && b.find {
		b.find = false
		b.tell(d)
	}
}

// tell writes what the device has to say into the block and moves its futex word. The lock is held.
func (b *block) tell(d *Device) {
	b.show(d)
	b.wake(d)
}

// show writes the head.
func (b *block) show(d *Device) {
	if b.mem == nil || b.size == 0 {
		return
	}
	if err := b.writeHead(d); err != nil {
		d.log.Warn("cannot tell a process the device's state", "pid", b.process.PID, "err", err)
	}
}

// wake moves the futex word.
func (b *block) wake(d *Device) {
	if b.mem == nil || b.size == 0 {
		return
	}
	if err := b.mem.signal(procs.OffWord); err != nil {
		d.log.Warn("cannot wake a process for the device's state", "pid", b.process.PID, "err", err)
	}
}

// tellAll tells every process that has a block. All can see it before the first is woken: what that one then does to its peers
// they can tell from what their peers do by themselves. The lock is held.
func (d *Device) tellAll() {
	for _, p := range d.processes.byID {
		if p.block != nil {
			p.block.show(d)
		}
	}
	for _, p := range d.processes.byID {
		if p.block != nil {
			p.block.wake(d)
		}
	}
}

// settings returns the knobs as a block's head shows them. The lock is held.
func (d *Device) settings() uint32 {
	var s uint32
	if d.dmbType == Virtual {
		s |= procs.SettingType
	}
	if d.dmbCopy {
		s |= procs.SettingCopy
	}
	return s | d.waiting.setting()
}
