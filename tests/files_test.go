// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openFiles counts the descriptors of the daemon.
func (d *device) openFiles() int {
	d.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(files)
}

// TestLooks: each look costs the daemon a descriptor, so nobody gets so many that the others are left without.
func TestLooks(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	before := d.openFiles()
	greedy := startClient(t, asUser(1000))
	greedy.Register(d, tokenOf(1), 4096)
	greedy.Block(d)
	path := d.Path("dmbs", tokenOf(1))
	var looks []int
	for len(looks) < 2000 {
		fd, err := greedy.Open(path, unix.O_RDONLY)
		if err != nil {
			wantErrno(t, "one look too many", err, unix.ENFILE)
			break
		}
		looks = append(looks, fd)
	}
	if n := len(looks); n != 256 {
		t.Errorf("one uid has %d looks", n)
	}
	accomplice := startClient(t, asUser(1000))
	_, err := accomplice.Open(d.Path("procs", greedy.Self(d)), unix.O_RDONLY)
	wantErrno(t, "a look at a procs block", err, unix.ENFILE)
	if n := d.openFiles(); n > before+len(looks)+16 {
		t.Errorf("the daemon has %d files open, and had %d", n, before)
	}
	for range 300 { // the privileged are trusted; and the others are not in the way of anybody else
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	other := startClient(t, asUser(1001))
	other.Register(d, tokenOf(2), 4096)
	other.MustOpen(d.Path("dmbs", tokenOf(2)), unix.O_RDONLY)
	greedy.Register(d, tokenOf(3), 4096)
	wantErrno(t, "close", greedy.Close(looks[0]), nil)
	waitFor(t, "a look to be free", func() error {
		_, err := greedy.Open(path, unix.O_RDONLY)
		return err
	})
	greedy.Kill()
	accomplice.Kill()
	other.Kill()
	waitFor(t, "the daemon to close", func() error {
		if n := d.openFiles(); n > before+300 {
			return fmt.Errorf("%d files, before %d", n, before)
		}
		return nil
	})
	by.wantAlive("yes")
}

// TestOutOfFiles: a daemon without descriptors refuses with ENFILE, says so in its log, keeps what there is, and recovers.
func TestOutOfFiles(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	var old unix.Rlimit
	if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: uint64(d.openFiles() + 8), Max: old.Max}
	if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	c := startClient(t)
	var fds []int
	for n := 0; ; n++ {
		fd, err := c.Open(d.Path("dmbs", tokenOf(n)), register)
		if err == nil {
			if err = c.Truncate(fd, 4096); err != nil { // to see who asks takes one, too
				wantErrno(t, "close", c.Close(fd), nil)
			}
		}
		if err != nil {
			wantErrno(t, fmt.Sprintf("DMB %d", n), err, unix.ENFILE)
			break
		}
		if n == 100 {
			t.Fatal("the limit does not bite")
		}
		fds = append(fds, fd)
	}
	if log := d.log.String(); !strings.Contains(log, "RLIMIT_NOFILE") {
		t.Error("the log does not say what is missing")
	}
	if _, err := os.ReadFile(d.Path("gid")); err != nil {
		t.Error(err)
	}
	d.WantCount(len(fds) + 1)
	for i, fd := range fds {
		m := c.MustMap(fd, 4096)
		wantErrno(t, fmt.Sprintf("storing into DMB %d", i), c.Store(m, []byte("x"), 32), nil)
	}
	by.wantAlive("without descriptors")
	for _, fd := range fds {
		wantErrno(t, "close", c.Close(fd), nil)
	}
	d.WantCount(1)
	fd, _ := c.Register(d, tokenOf(1000), 4096)
	wantErrno(t, "close", c.Close(fd), nil)
	c.Kill()
	if err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	by.wantUndisturbed()
}
