// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
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
	if r.Cgroup != h.cgroup || !r.WholeHost {
		t.Errorf("%+v", r)
	}
}

func TestProbe(t *testing.T) {
	h := newHost(t)
	var r Report
	if err := h.probe(&r); err != nil || r.Attached || r.Devices != nil || r.Waiting != 0 {
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
	if err := h.probe(&r); err != nil || !r.Attached || !slices.Equal(r.Devices, []Device{{one.tag, true}}) || r.Waiting != 1 {
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
}

// smcopt itself, with its own option number, under Go's net.
func TestSmcopt(t *testing.T) {
	real, err := thisHost()
	if err != nil {
		t.Skip(err)
	}
	h := newHost(t)
	if len(query(t, real.cgroup)) > 0 {
		t.Skip("programs are attached to the root cgroup: if they are a set of ours, they answer that option")
	}
	h.option = smcopt.Name
	r := register(t, h, 1)
	control := func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = smcopt.Mark(int(fd), r.tag) })
		return errors.Join(e, err)
	}
	lc := net.ListenConfig{Control: control}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{Control: control}
	d.SetMultipathTCP(false)
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	on := func(c any, f func(fd int) error) error {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		e := raw.Control(func(fd uintptr) { err = f(int(fd)) })
		return errors.Join(e, err)
	}
	wantAsk := func(c any, want smcopt.Answer) {
		t.Helper()
		err := on(c, func(fd int) error {
			if a, err := smcopt.Ask(fd); err != nil || a != want {
				t.Errorf("%v %v (%v), want %v", a.State, a.Tag, err, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	wantAsk(c, smc(r.tag))
	wantAsk(s, smc(r.tag))
	wantAsk(l, smcopt.Answer{State: smcopt.Listener, Tag: r.tag})
	if err := on(l, smcopt.Unmark); err != nil {
		t.Error(err)
	}
	if err := on(l, func(fd int) error { _, err := smcopt.Ask(fd); return err }); !errors.Is(err, smcopt.ErrNotMarked) {
		t.Error("an un-marked listener:", err)
	}
	if err := on(l, func(fd int) error { return smcopt.Mark(fd, testTag(9)) }); !errors.Is(err, smcopt.ErrNoDevice) {
		t.Error("an unknown tag:", err)
	}
	if err := on(c, func(fd int) error { return smcopt.Mark(fd, r.tag) }); !errors.Is(err, unix.EISCONN) {
		t.Error("a connected socket:", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "detaching", func() bool { return len(query(t, h.cgroup)) == 0 })
	for name, f := range map[string]func(int) error{
		"mark":   func(fd int) error { return smcopt.Mark(fd, r.tag) },
		"unmark": smcopt.Unmark,
		"ask":    func(fd int) error { _, err := smcopt.Ask(fd); return err },
	} {
		if err := on(c, f); !errors.Is(err, smcopt.ErrNoPrograms) {
			t.Errorf("%s without programs: %v", name, err)
		}
	}
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
