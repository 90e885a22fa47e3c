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

// waiting counts the sockets, of all network namespaces, that would be worse off without the programs: marked listeners, and
// connections whose answer nobody has read. Their question would fail, and they would have to be reset.
func (h host) waiting() (int, error) {
	marks, err := ebpf.LoadPinnedMap(mapPin(h.set(), marksName), nil)
	if err != nil {
		return 0, h.damaged(err)
	}
	defer marks.Close()
	n, err := count(ismfsProgIsmfsSockets, marks, link.IterOptions{Map: marks})
	if errors.Is(err, os.ErrPermission) && inFirstPIDNamespace() {
		// A kernel that is locked down has no iterator over storage. Files that are on their way in a message, and those that
		// only io_uring knows, escape the other one: such a connection is reset, should it be there.
		n, err = count(ismfsProgIsmfsTaskSockets, marks, link.IterOptions{})
	}
	if err != nil {
		return 0, typed(fmt.Errorf("the programs stay attached, since the one that would count marked sockets cannot be used: %w", err))
	}
	return n, nil
}

// count runs one of the iterators and returns how many sockets its records stand for.
func count(program string, marks *ebpf.Map, options link.IterOptions) (int, error) {
	spec, err := loadIsmfs()
	if err != nil {
		return 0, err
	}
	spec = &ebpf.CollectionSpec{
		Maps:     map[string]*ebpf.MapSpec{marksName: spec.Maps[marksName]},
		Programs: map[string]*ebpf.ProgramSpec{program: spec.Programs[program]},
		Types:    spec.Types, ByteOrder: spec.ByteOrder,
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{marksName: marks}})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	options.Program = c.Programs[program]
	l, err := link.AttachIter(options)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	r, err := l.Open()
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
