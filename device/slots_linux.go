// SPDX-License-Identifier: Apache-2.0

package device

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
)

// A described process is one that the caller of a listing may see, with what its slots say.
type described struct {
	process *Process
	uid     uint32
	task    string // where /proc shows a thread of its
	netNS   uint64 // inode number of the network namespace that this one is in, 0 if it cannot be asked
	conns   []*procs.Conn
	groups  []*procs.Group
}

// describe hands over, by their ids, the processes that have described something and that one may see who is in the process pid. The
// lock is held for moments only: blocks are read through descriptors of their own.
func (d *Device) describe(pid int, who Principal, yield func(*described)) error {
	var r slotReader
	for _, b := range d.blocks() {
		fd, err := d.openToRead(b, pid, who)
		if err != nil {
			return err
		}
		if fd < 0 {
			continue
		}
		p := &described{process: b.process, uid: b.uid}
		r.read(fd, b.size, p.add)
		unix.Close(fd)
		if len(p.conns) > 0 || len(p.groups) > 0 {
			p.task, p.netNS = taskOf(b.process.PID)
			yield(p)
		}
	}
	return nil
}

// blocks returns the procs blocks that have a size, by their processes' ids.
func (d *Device) blocks() []*block {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*block
	for _, p := range d.processes.byID {
		if p.block != nil && p.block.size != 0 {
			list = append(list, p.block)
		}
	}
	slices.SortFunc(list, func(a, b *block) int { return cmp.Compare(a.process.ID, b.process.ID) })
	return list
}

// openToRead returns a descriptor of a block's memory, -1 if its process has exited or is not the caller's to see.
func (d *Device) openToRead(b *block, pid int, who Principal) (fd int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.removed || b.mem == nil || b.process.exited() || !d.maySee(b.process, pid, who) {
		return -1, nil
	}
	return b.mem.dup()
}

// slotChunk is how much of a block is read at once.
const slotChunk = 64 << 10

// tornRounds bounds how often the slots of one block are read again because somebody was writing. Who is in the middle of it
// even then, for ever perhaps, is left out.
const tornRounds = 32

// A slotReader reads the slots of blocks, one block after the other.
type slotReader struct {
	before, slots, after [slotChunk]byte
	rounds               int // left
}

// read hands over the slots of a block of some size, those that are free too.
func (r *slotReader) read(fd int, size int64, yield func(slot []byte)) {
	r.rounds = tornRounds
	for off := int64(procs.OffSlots); off < size; off += slotChunk {
		// A block is populated as far as it is used, and no slot lies across two pages.
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err != nil {
			return // ENXIO: the rest is a hole
		}
		off = data
		r.chunk(fd, off, int(min(slotChunk, size-off)), yield)
	}
}

// chunk reads n bytes of slots. A slot counts if its sequence word was the same even number before and after it was copied.
// Each of the three readings is a call of its own, so none of them moves into another.
func (r *slotReader) chunk(fd int, off int64, n int, yield func(slot []byte)) {
	done := make([]bool, n/procs.SlotLen)
	for {
		if !preadAll(fd, r.before[:n], off) || !preadAll(fd, r.slots[:n], off) || !preadAll(fd, r.after[:n], off) {
			return
		}
		torn := false
		for i := range done {
			at := i * procs.SlotLen
			seq := binary.NativeEndian.Uint32(r.before[at+procs.OffSequence:])
			switch {
			case done[i]:
			case seq%2 == 0 && seq == binary.NativeEndian.Uint32(r.after[at+procs.OffSequence:]):
				done[i] = true
				yield(r.slots[at : at+procs.SlotLen])
			default:
				torn = true
			}
		}
		if !torn || r.rounds == 0 {
			return
		}
		r.rounds--
		time.Sleep(50 * time.Microsecond)
	}
}

func preadAll(fd int, b []byte, off int64) bool {
	n, err := unix.Pread(fd, b, off)
	return err == nil && n == len(b)
}

func (p *described) add(slot []byte) {
	_, c, g, err := procs.ParseSlot(slot)
	switch {
	case err != nil: // it is the process's own line that is missing
	case c != nil:
		p.conns = append(p.conns, c)
	case g != nil:
		p.groups = append(p.groups, g)
	}
}
