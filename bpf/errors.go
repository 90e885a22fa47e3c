// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
)

// What keeps the programs from being attached. In each case sockets stay TCP, and the error's text tells more.
var (
	// ErrNotSupported: the kernel lacks something.
	ErrNotSupported = errors.New("this kernel cannot run the programs")
	// ErrNotPermitted: a privilege is missing, or somebody else has shut the door.
	ErrNotPermitted = errors.New("not permitted to attach the programs")
	// ErrNoCgroup2: there is no cgroup v2 hierarchy to attach to.
	ErrNoCgroup2 = errors.New("no cgroup v2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
	// ErrOtherSet: programs of ismfs are attached that this daemon cannot share.
	ErrOtherSet = errors.New("another set of ismfs programs is attached")
)

// typed gives an error of the kernel or of cilium/ebpf its type.
func typed(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNotSupported), errors.Is(err, ErrNotPermitted), errors.Is(err, ErrOtherSet):
		return err
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	return err
}
