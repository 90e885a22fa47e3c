// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A stage is what a child of the test does before it becomes what it is started for: credentials and mounts that
// SysProcAttr cannot set. It runs on the one thread that then calls execve, so no other thread has to follow.
const (
	stageVariable  = "ISMFS_TEST_STAGE"      // words: proc, caps=HEX
	targetVariable = "ISMFS_TEST_STAGE_EXEC" // the program; this one again if it is not set
)

func init() {
	if raceEnabled { // else every daemon, as it ends, waits a second for races that nobody is left to make
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	}
	words := os.Getenv(stageVariable)
	if words == "" {
		return
	}
	runtime.LockOSThread()
	if err := runStage(words); err != nil {
		fmt.Fprintln(os.Stderr, "stage:", err)
		os.Exit(1)
	}
}

func runStage(words string) error {
	for word := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "proc":
			err = mountProc()
		case "caps":
			err = dropBoundingSet(value)
		default:
			err = fmt.Errorf("what is %q?", word)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
	}
	os.Unsetenv(stageVariable)
	target := os.Getenv(targetVariable)
	if target == "" {
		target = "/proc/self/exe"
	}
	return syscall.Exec(target, os.Args, os.Environ())
}

// mountProc shows the new pid namespace on /proc, in a mount namespace that keeps it to itself.
func mountProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", 0, "")
}

// dropBoundingSet leaves only the capabilities of a mask; execve as uid 0 then gives exactly these.
func dropBoundingSet(mask string) error {
	keep, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return err
	}
	for c := range uint64(unix.CAP_LAST_CAP + 1) {
		if keep&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// dockerCaps are what a container engine leaves uid 0 of a container by default.
const dockerCaps = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP |
	1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL |
	1<<unix.CAP_AUDIT_WRITE

// inContainer runs a client as uid 0 with a container's capabilities and no user namespace, in the namespaces of flags.
func inContainer(flags uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Cloneflags |= flags
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=caps=%x", stageVariable, uint64(dockerCaps)))
	}
}

// inUserNamespace runs a client as uid 0 of a new user namespace, which is uid outside, and in the namespaces of flags.
func inUserNamespace(uid int, flags uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		a := cmd.SysProcAttr
		a.Cloneflags |= unix.CLONE_NEWUSER | flags
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappingsEnableSetgroups = true
		a.Credential = &syscall.Credential{}
	}
}

// inGroups runs a client as an ordinary user with a group of its own and supplementary groups.
func inGroups(uid, gid uint32, groups ...uint32) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}
	}
}

// inheriting gives a client an open file of the test's as descriptor 3.
func inheriting(f *os.File) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.ExtraFiles = append(cmd.ExtraFiles, f) }
}

// mountDeviceInPIDNamespace mounts with the daemon in pid and mount namespaces of its own. The tree is reached through the
// daemon's root.
func mountDeviceInPIDNamespace(t *testing.T) *device {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	point := tempDir(t)
	d := &device{t: t, log: new(logBuffer), ended: make(chan struct{})}
	d.cmd = exec.Command(self, "mount", "--foreground", point)
	d.cmd.Env = append(os.Environ(), stageVariable+"=proc", targetVariable+"="+filepath.Join(bin, "ismfs"))
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.Point = filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "root", point)
	d.Dir = filepath.Join(d.Point, "devices", "loopback-ism")
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(d.stop)
	waitFor(t, "the daemon in its namespaces", func() error {
		if !strings.Contains(d.log.String(), "mounted") {
			return fmt.Errorf("it says %q", d.log)
		}
		return nil
	})
	return d
}
