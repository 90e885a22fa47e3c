// SPDX-License-Identifier: Apache-2.0

// Package tree finds a mounted ismfs and reads and steers its loopback-ism device through the files of the tree, as any
// program in any language could. It knows nothing of the daemon but these files.
//
//	dev, err := tree.Find("")
//	switch {
//	case errors.Is(err, tree.ErrNoMount), errors.Is(err, tree.ErrOff):
//		// stay on TCP
//	case err != nil:
//		return err
//	}
//	gid, err := dev.GID()
//
// Errors of the file system are passed on: errors.Is works on them with fs.ErrPermission, fs.ErrNotExist and every
// syscall.Errno with which the device rejects a write.
//
// The package compiles everywhere. Where there can be no ismfs, finding one says [ErrUnsupported].
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// EnvMount is the environment variable that says which mount a program uses: a mount point, or "off" for none.
	EnvMount = "ISMFS_MOUNT"

	// DeviceName is the device's name, under devices/ in the tree; the kernel calls its own the same.
	DeviceName = "loopback-ism"
)

// What keeps a program from a device. The errors that [Find] and [Devices] return wrap one of these and say more.
var (
	ErrNoMount       = errors.New("no ismfs mount")
	ErrOff           = errors.New("ismfs is switched off by " + EnvMount + "=off")
	ErrSeveralMounts = errors.New("several ismfs mounts")
	ErrDeadMount     = errors.New("dead ismfs mount")
	ErrUnsupported   = errors.New("no ismfs on this system: it needs Linux")
)

// Find returns the device that a program is to use: that of the mount at point; with an empty point that of the mount that
// $ISMFS_MOUNT names; and without this variable that of the only mount there is. A mount whose daemon has died counts only
// if no other lives. Several mount points of one device count as one.
//
// A point that is given is taken at its word: it needs the device's files, not an entry among this process's mounts.
//
// Errors: [ErrNoMount], [ErrOff], [ErrSeveralMounts], [ErrDeadMount], [ErrUnsupported]; fs.ErrPermission for a mount that
// belongs to another user and is not for all.
func Find(point string) (*Device, error) {
	if !supported {
		return nil, ErrUnsupported
	}
	if point == "" {
		point = os.Getenv(EnvMount)
		if point == "off" {
			return nil, ErrOff
		}
	}
	if point != "" {
		return open(point)
	}
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	m, err := choose(mounts, Mount.Alive)
	if err != nil {
		return nil, err
	}
	return open(m.Point)
}

// Devices returns every mounted device once, in the order in which the kernel lists the mounts. The error, [ErrDeadMount]
// among others, names the mounts that did not answer; the devices returned beside it are good.
func Devices() ([]*Device, error) {
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	if len(mounts) == 0 {
		return nil, errNone()
	}
	var devices []*Device
	var failed []error
	for _, m := range onePerDevice(mounts) {
		d, err := open(m.Point)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		devices = append(devices, d)
	}
	return devices, errors.Join(failed...)
}

// open returns the device mounted at point if it answers. It reads the GID, since an open is the cheapest question that the
// kernel never answers from a cache, as it may a look-up or a stat after the daemon's death.
func open(point string) (*Device, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return nil, fmt.Errorf("mount point %s: %w", point, err)
	}
	d := &Device{point: abs}
	_, err = d.GID()
	switch {
	case err == nil:
		return d, nil
	case isDead(err):
		return nil, errDead(abs, err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w at %s: `ismfs mount %s` makes one, `ismfs info` lists what there is (%w)", ErrNoMount, abs, abs, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("ismfs at %s is not for this user (--mode and --allow-other of ismfs mount): %w", abs, err)
	}
	return nil, fmt.Errorf("ismfs at %s: %w", abs, err)
}

// choose picks the mount to use where nobody named one.
func choose(mounts []Mount, alive func(Mount) error) (Mount, error) {
	if len(mounts) == 0 {
		return Mount{}, errNone()
	}
	var living []Mount
	var dead []error
	for _, m := range onePerDevice(mounts) {
		if err := alive(m); isDead(err) {
			dead = append(dead, err)
			continue
		}
		living = append(living, m)
	}
	switch len(living) {
	case 0:
		return Mount{}, errors.Join(dead...)
	case 1:
		return living[0], nil
	}
	return Mount{}, fmt.Errorf("%w: %s; choose one with %s=DIR", ErrSeveralMounts, pointsOf(living), EnvMount)
}

// onePerDevice keeps the first mount of each device: a bind mount shows the same device at a second place.
func onePerDevice(mounts []Mount) []Mount {
	var first []Mount
	for _, m := range mounts {
		if !slices.ContainsFunc(first, func(f Mount) bool { return f.Dev == m.Dev }) {
			first = append(first, m)
		}
	}
	return first
}

func pointsOf(mounts []Mount) string {
	points := make([]string, len(mounts))
	for i, m := range mounts {
		points[i] = m.Point
	}
	return strings.Join(points, ", ")
}

func errNone() error {
	return fmt.Errorf("%w among the mounts of this process: `ismfs mount DIR` makes one", ErrNoMount)
}

func errDead(point string, cause error) error {
	return fmt.Errorf("%w at %s: its daemon is gone, `ismfs mount --replace %s` brings it back (%w)",
		ErrDeadMount, point, point, cause)
}

// isDead tells the kernel's answers for a FUSE mount without a daemon: ENOTCONN once it has gone, ECONNABORTED for a request
// that it left behind.
func isDead(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}
