// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests run in mount and network namespaces and in a cgroup of their own, with an option number and a program name of
// their own. So they meet neither the sockets of this machine nor a set of programs that it uses, and nothing of theirs stays
// when they are killed: links die with the namespace that holds their pins.
const (
	insideVariable = "ISMFS_BPF_TEST_CGROUP" // the cgroup, once inside
	daemonVariable = "ISMFS_BPF_TEST_DAEMON" // see runDaemon
	testOption     = 0x49534dff
	testProgram    = "ismfs_test"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(daemonVariable) != "":
		os.Exit(runDaemon(os.Getenv(daemonVariable)))
	case os.Getenv(insideVariable) != "":
		os.Exit(runInside(m))
	}
	if err := missing(); err != nil {
		fmt.Fprintln(os.Stderr, "bpf: only the tests that need no kernel:", err)
		if os.Getenv("CI") != "" {
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	os.Exit(runOutside())
}

// missing says what the tests of the programs need and this machine does not have.
func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("attaching needs root")
	}
	h, err := thisHost()
	if err != nil {
		return err
	}
	if !h.wholeHost {
		return fmt.Errorf("%s is not the root of the cgroup v2 hierarchy", h.cgroup)
	}
	return nil
}

// inside reports whether the kernel's side can be tested, and skips if not.
func inside(t testing.TB) {
	if os.Getenv(insideVariable) == "" {
		t.Skip(missing())
	}
}

func runOutside() int {
	h, err := thisHost()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stale, _ := filepath.Glob(filepath.Join(h.cgroup, "ismfs-bpf-test-*"))
	for _, dir := range stale {
		os.Remove(dir) // fails while another run is in it
	}
	dir, err := os.MkdirTemp(h.cgroup, "ismfs-bpf-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.Remove(dir)
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideVariable+"="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := c.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runInside(m *testing.M) int {
	if err := enterCgroup(os.Getenv(insideVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "ip link set lo up: %v %s\n", err, out)
		return 1
	}
	return m.Run()
}

// enterCgroup moves this process: a socket belongs to the cgroup of who made it.
func enterCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// newHost makes a host for one test: a cgroup and a BPF file system without programs.
func newHost(t testing.TB) host {
	t.Helper()
	inside(t)
	h := host{cgroup: os.Getenv(insideVariable), wholeHost: true, bpffs: t.TempDir(), option: testOption, program: testProgram}
	if err := h.mountBPFFS(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(h.bpffs, 0); err != nil {
			t.Error(err)
		}
		eventually(t, "programs stay attached", func() bool { return len(query(t, h.cgroup)) == 0 })
	})
	return h
}

func register(t testing.TB, h host, tag byte) *Registration {
	t.Helper()
	r, err := h.attach(testTag(tag))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func sysctl(t testing.TB, n *netns, name, value string) {
	t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	n.do(t, func() error { return os.WriteFile(path, []byte(value), 0) })
}
