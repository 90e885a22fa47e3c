// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFindCgroup2(t *testing.T) {
	const (
		unified = "30 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
		hybrid  = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		elsewhere = "50 23 0:40 /system.slice /mnt/a\\040part rw - cgroup2 none rw\n" + "51 23 0:40 / /mnt/the\\134whole rw - cgroup2 none rw\n"
		legacy    = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	)
	for _, c := range []struct {
		name, mountinfo string
		roots           []string
		dir             string
		whole           bool
	}{
		{"unified", unified, []string{"/sys/fs/cgroup"}, "/sys/fs/cgroup", true},
		{"hybrid", hybrid, []string{"/sys/fs/cgroup/unified"}, "/sys/fs/cgroup/unified", true},
		{"container", unified, nil, "/sys/fs/cgroup", false},
		{"a part, then the whole", elsewhere, []string{`/mnt/the\whole`}, `/mnt/the\whole`, true},
		{"two parts", elsewhere, nil, "/mnt/a part", false},
		{"version 1 only", legacy, nil, "", false},
		{"nothing", "", nil, "", false},
		{"no mountinfo", "cgroup2 - cgroup2\n\n - \nx - cgroup2", nil, "", false},
	} {
		dir, whole := findCgroup2(c.mountinfo, func(dir string) bool { return slices.Contains(c.roots, dir) })
		if dir != c.dir || whole != c.whole {
			t.Errorf("%s: %q %v, want %q %v", c.name, dir, whole, c.dir, c.whole)
		}
	}
}

func TestThisHost(t *testing.T) {
	inside(t)
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	if !h.wholeHost || !isRootCgroup(h.cgroup) || isRootCgroup(os.Getenv(insideVariable)) || isRootCgroup(t.TempDir()) {
		t.Errorf("%+v is not the root of the hierarchy, or something else is", h)
	}
	r, err := Probe()
	if err != nil && !errors.Is(err, ErrOtherSet) {
		t.Error("probe:", err)
	}
	if r.Cgroup != h.cgroup || !r.WholeHost || !r.Loads {
		t.Errorf("%+v", r)
	}
}

func TestProbe(t *testing.T) {
	h := newHost(t)
	var r Report
	if err := h.probe(&r); err != nil || r.Set != "" || r.Devices != nil || r.Waiting != 0 {
		t.Errorf("%+v (%v), want nothing attached", r, err)
	}
	if n := len(query(t, h.cgroup)); n != 0 {
		t.Errorf("probing has attached %d programs", n)
	}
	one := register(t, h, 1)
	listener(t, nil, loopback4, one.tag)
	if one.WholeHost() {
		t.Error("a set that is attached to one cgroup claims the whole host")
	}
	if err := h.probe(&r); err != nil || r.Set != h.set() || !slices.Equal(r.Devices, []Device{{one.tag, true, false}}) || r.Waiting != 1 {
		t.Errorf("%+v (%v), want a device and a listener", r, err)
	}
}

// Without the privilege: an error of its type, and nothing left behind.
func TestNotPermitted(t *testing.T) {
	h := newHost(t)
	n := newNetns(t)
	n.do(t, func() error {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			return e
		}
		return nil
	})
	n.do(t, func() error {
		var r Report
		if err := h.probe(&r); !errors.Is(err, ErrNotPermitted) {
			t.Error("probe:", err)
		}
		if _, err := h.attach(testTag(1)); !errors.Is(err, ErrNotPermitted) {
			t.Error("attach:", err)
		}
		return nil
	})
	wantSet(t, h, false)
}

func TestLock(t *testing.T) {
	h := newHost(t)
	unlock, err := h.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := flock(h.base()); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Error("a lock held twice:", err)
	}
	if _, err := waitForFlock(h.base(), time.Now().Add(20*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a lock held twice, in time:", err)
	}
	got := make(chan error)
	go func() {
		unlock, err := h.lock() // of a directory that has been removed by then
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(h.base()); !errors.Is(err, os.ErrNotExist) {
		t.Error("the empty directory stays:", err)
	}
	eventually(t, "a lock that came too late is kept", func() bool {
		fds, err := filepath.Glob("/proc/self/fd/*")
		return err == nil && !slices.ContainsFunc(fds, func(fd string) bool {
			to, _ := os.Readlink(fd)
			return strings.HasPrefix(to, h.base())
		})
	})
}

// The committed objects tell nothing of where they were compiled.
func TestObject(t *testing.T) {
	for _, name := range []string{"ismfs_bpfel.o", "ismfs_bpfeb.o"} {
		object, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := filepath.Abs(".")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(object, []byte(dir)) {
			t.Errorf("%s holds the path it was compiled in", name)
		}
	}
}
