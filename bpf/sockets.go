// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A counter counts the sockets, of all network namespaces, that would be worse off without the programs: marked listeners, and
// connections whose answer nobody has read. Their question would fail, and they would have to be reset. To make one takes far
// longer than to count, since the kernel's types are read.
type counter struct{ iter *link.Iter }

func (h host) newCounter() (*counter, error) {
	marks, err := ebpf.LoadPinnedMap(mapPin(h.set(), marksName), nil)
	if err != nil {
		return nil, h.damaged(err)
	}
	defer marks.Close()
	c, err := newIterator(ismfsProgIsmfsSockets, marks, link.IterOptions{Map: marks})
	if errors.Is(err, os.ErrPermission) && inFirstPIDNamespace() {
		// A kernel that is locked down has no iterator over storage. Files that are on their way in a message, and those that
		// only io_uring knows, escape the other one: such a connection is reset, should it be there.
		c, err = newIterator(ismfsProgIsmfsTaskSockets, marks, link.IterOptions{})
	}
	if err != nil {
		return nil, typed(fmt.Errorf("the programs stay attached, since the one that would count marked sockets cannot be used: %w", err))
	}
	return c, nil
}

// waiting counts once.
func (h host) waiting() (int, error) {
	c, err := h.newCounter()
	if err != nil {
		return 0, err
	}
	defer c.iter.Close()
	return c.count()
}

// newIterator loads one of the iterators.
func newIterator(program string, marks *ebpf.Map, options link.IterOptions) (*counter, error) {
	spec, err := loadIsmfs()
	if err != nil {
		return nil, err
	}
	spec = &ebpf.CollectionSpec{
		Maps:     map[string]*ebpf.MapSpec{marksName: spec.Maps[marksName]},
		Programs: map[string]*ebpf.ProgramSpec{program: spec.Programs[program]},
		Types:    spec.Types, ByteOrder: spec.ByteOrder,
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{marksName: marks}})
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	options.Program = loaded.Programs[program]
	l, err := link.AttachIter(options)
	if err != nil {
		return nil, err
	}
	c := &counter{l}
	if _, err := c.count(); err != nil { // it is here that the kernel may refuse
		l.Close()
		return nil, err
	}
	return c, nil
}

// count returns how many sockets the records stand for.
func (c *counter) count() (int, error) {
	r, err := c.iter.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	records, err := io.ReadAll(r)
	return sum(records), err
}

// recordSize is the size of struct record.
const recordSize = 16

// sum adds up what the records stand for, each socket once.
func sum(records []byte) (n int) {
	seen := make(map[uint64]bool)
	for ; len(records) >= recordSize; records = records[recordSize:] {
		cookie, sockets := binary.NativeEndian.Uint64(records), binary.NativeEndian.Uint64(records[8:])
		if !seen[cookie] {
			seen[cookie] = true
			n += int(sockets)
		}
	}
	return n
}

// firstPIDNamespace is the inode of the pid namespace of the host (PROC_PID_INIT_INO), from which all processes are seen.
const firstPIDNamespace = "pid:[4026531836]"

func inFirstPIDNamespace() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && ns == firstPIDNamespace
}
