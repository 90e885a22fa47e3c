// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// markSize is the size of struct mark: the length of a record of the iterator.
const markSize = 24

// waiting counts the sockets, of all network namespaces, that would be worse off without the programs: marked listeners, and
// connections whose answer nobody has read. Their question would fail, and they would have to be reset.
func (h host) waiting() (int, error) {
	marks, err := ebpf.LoadPinnedMap(mapPin(h.set(), marksName), nil)
	if err != nil {
		return 0, h.damaged(err)
	}
	defer marks.Close()
	spec, err := loadIsmfs()
	if err != nil {
		return 0, err
	}
	p, err := ebpf.NewProgram(spec.Programs[ismfsProgIsmfsSockets])
	if err != nil {
		return 0, typed(fmt.Errorf("the programs stay attached, since the one that would count marked sockets cannot be loaded: %w", err))
	}
	defer p.Close()
	l, err := link.AttachIter(link.IterOptions{Program: p, Map: marks})
	if err != nil {
		return 0, typed(err)
	}
	defer l.Close()
	r, err := l.Open()
	if err != nil {
		return 0, typed(err)
	}
	defer r.Close()
	records, err := io.Copy(io.Discard, r)
	return int(records / markSize), err
}
