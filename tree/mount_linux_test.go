// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// mountDead makes an ismfs mount whose daemon has died, at a point with a blank in its name.
func mountDead(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	defer syscall.Close(fd) // this is the daemon's death
	point := filepath.Join(t.TempDir(), "a point")
	if err := syscall.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := syscall.Mount("test", point, fsType, syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", point, err)
		}
	})
	return point
}

func TestDeadMount(t *testing.T) {
	point := mountDead(t)
	mounts, err := Mounts()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(mounts, func(m Mount) bool { return m.Point == point })
	if i < 0 {
		t.Fatalf("%s is not among %+v", point, mounts)
	}
	if m := mounts[i]; m.Source != "test" || !slices.Contains(m.Options, "nosuid") ||
		!slices.Contains(m.SuperOptions, "user_id=0") {
		t.Errorf("described as %+v", m)
	}
	wantDead := func(what string, err error) {
		if !errors.Is(err, ErrDeadMount) || !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	wantDead("Alive", mounts[i].Alive())
	_, err = Find(point)
	wantDead("Find", err)
	_, err = Devices()
	wantDead("Devices", err)
}

func TestAliveOnOrdinaryFiles(t *testing.T) {
	dir := t.TempDir()
	if err := (Mount{Point: dir}).Alive(); err != nil {
		t.Error(err)
	}
	if err := (Mount{Point: filepath.Join(dir, "missing")}).Alive(); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("error %v", err)
	}
}
