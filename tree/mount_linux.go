// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const supported = true

// Mounts returns the ismfs trees among the mounts of this process, in the order in which the kernel lists them, dead ones
// included. Of several that are stacked on one mount point only the topmost counts, and none counts that a later mount hides.
func Mounts() ([]Mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for ismfs mounts: %w", err)
	}
	return parseMountinfo(string(text))
}

// FileSystem tells the file systems apart that come to be mounted at the mount point. The daemon is not asked; the underlying one
// is told where nothing is mounted any more.
func (d *Device) FileSystem() (id uint64, err error) {
	err = ignoringEINTR(func() error {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, d.point, unix.AT_STATX_DONT_SYNC, 0, &st)
		id = unix.Mkdev(st.Dev_major, st.Dev_minor)
		return err
	})
	if err != nil {
		return 0, &os.PathError{Op: "statx", Path: d.point, Err: err}
	}
	return id, nil
}

// Shown reports whether a device, named as [Mount.Dev] is, is mounted anywhere among the mounts of this process, hidden or not.
func Shown(dev string) (bool, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("looking for mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == dev {
			return true, nil
		}
	}
	return false, nil
}

// Alive returns nil if the daemon behind the mount answers, and [ErrDeadMount] if it has gone.
func (m Mount) Alive() error {
	// statfs and not stat, which the kernel may answer from its cache after the daemon's death.
	err := ignoringEINTR(func() error {
		var st syscall.Statfs_t
		return syscall.Statfs(m.Point, &st)
	})
	if err == nil {
		return nil
	}
	err = &os.PathError{Op: "statfs", Path: m.Point, Err: err}
	if isDead(err) {
		return errDead(m.Point, err)
	}
	return err
}

// ignoringEINTR repeats a call that a signal interrupted: Go's own preemption signals interrupt requests to a FUSE daemon.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}
