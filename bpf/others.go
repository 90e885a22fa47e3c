// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// noOtherSet makes sure that no set but one below this host's base() is attached: two would answer SYNs for each other's
// listeners. There can be one of another version, or one pinned in another bpffs (that of a container, say).
func (h host) noOtherSet() error {
	versions, err := filepath.Glob(filepath.Join(h.base(), "v*"))
	if err != nil {
		return err
	}
	if len(versions) > 0 {
		return fmt.Errorf("%w, of another version: %s; unmount the devices of that version, or remove it with rm -r", ErrOtherSet, strings.Join(versions, ", "))
	}
	return h.noOtherAttached()
}

// noOtherAttached makes sure that no set is attached, when this host's is not.
func (h host) noOtherAttached() error {
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		other, err := h.isSet(links.Link)
		if err != nil {
			return typed(err)
		}
		if other {
			return fmt.Errorf("%w, pinned in another BPF file system (bpftool link show): mount that one on %s here, too", ErrOtherSet, h.bpffs)
		}
	}
	if err := links.Err(); err != nil {
		return typed(fmt.Errorf("looking for another set: %w", err))
	}
	return nil
}

// isSet reports whether a link is that of a set's sockops program.
func (h host) isSet(l link.Link) (bool, error) {
	info, err := l.Info()
	if err != nil || info.Cgroup() == nil || info.Cgroup().CgroupId == 0 {
		return false, nil // of another kind, or on its way out
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer p.Close()
	loaded, err := p.Info()
	if err != nil {
		return false, err
	}
	return loaded.Name == h.program, nil
}
