// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Offsets of docs/dmb-format.md that these tests look at.
const (
	offProducer = 8
	offConsumer = 16
	offSequence = 24 // the futex word
	offWait     = 28
	offRing     = 32

	offDeviceWord = 12 // of a procs block
)

// daemonStats is what the "device" object of the file stats says of the daemon itself.
type daemonStats struct {
	PID        int
	MaxDMBs    int `json:"max_dmbs"`
	Goroutines int
	HeapLive   uint64 `json:"heap_live_bytes"`
}

func readStats(dir string) (daemonStats, error) {
	text, err := os.ReadFile(filepath.Join(dir, "stats"))
	if err != nil {
		return daemonStats{}, err
	}
	var s struct{ Device daemonStats }
	return s.Device, json.Unmarshal(text, &s)
}

// WaitEnd waits until the daemon has ended and returns what Wait said.
func (d *device) WaitEnd() error {
	d.t.Helper()
	select {
	case <-d.ended:
		return d.err
	case <-time.After(patience):
		d.t.Fatalf("waited %v for the daemon to end", patience)
		return nil
	}
}

// execute runs a built command or a program from PATH; change may set its environment, directory, SysProcAttr and so on. It
// returns when everybody has let go of the command's output, so a daemon that keeps it fails the test.
func execute(t *testing.T, change func(*exec.Cmd), name string, args ...string) result {
	t.Helper()
	if built := filepath.Join(bin, name); fileExists(built) {
		name = built
	}
	cmd := exec.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = patience
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if change != nil {
		change(cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %q: %v\n%s", name, args, err, &stderr)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// want fails the test unless a command ended with code and its standard error says all the words.
func (r result) want(t *testing.T, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Fatalf("exit code %d, want %d; stdout %q, stderr %q", r.Code, code, r.Stdout, r.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Fatalf("stderr %q does not say %q", r.Stderr, w)
		}
	}
}

// takeDown unmounts whatever is on a directory when the test ends, which ends a daemon in the background.
func takeDown(t *testing.T, point string) {
	t.Cleanup(func() {
		for syscall.Unmount(point, syscall.MNT_DETACH) == nil {
		}
	})
}

// isMounted says whether anything is mounted on a path, in the mount namespace of this process.
func isMounted(t *testing.T, point string) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(table), " "+point+" ")
}

// MustStat is Fstat for calls that have to succeed.
func (c *client) MustStat(fd int) unix.Stat_t {
	c.t.Helper()
	st, err := c.Fstat(fd)
	if err != nil {
		c.t.Fatalf("fstat: %v", err)
	}
	return st
}

// killPID ends a process that is not our child and waits until it has gone.
func killPID(t *testing.T, pid int) {
	t.Helper()
	syscall.Kill(pid, syscall.SIGKILL)
	waitGone(t, pid)
}

// waitGone waits until a process that is not our child has ended.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("the end of process %d", pid), func() error {
		if state := processState(pid); state != "" && state != "Z" {
			return fmt.Errorf("it is in state %s", state)
		}
		return nil
	})
}

// processState is the letter that ps shows, empty without such a process.
func processState(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

// Holder is SpawnHolder whose process does not outlive the test.
func (c *client) Holder(fd int) int {
	c.t.Helper()
	pid := c.SpawnHolder(fd)
	c.t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

// MountArgs are the arguments of mount(2).
type MountArgs struct {
	Source, Target, Type string
	Flags                uintptr
}

// Mount calls mount(2) in the client's mount namespace.
func (c *client) Mount(source, target string, flags uintptr) {
	c.t.Helper()
	var r CallReply
	if err := c.rpc.Call("Calls.Mount", MountArgs{Source: source, Target: target, Flags: flags}, &r); err != nil {
		c.t.Fatal(err)
	}
	if r.Errno != 0 {
		c.t.Fatalf("mount of %s on %s: %v", source, target, syscall.Errno(r.Errno))
	}
}

func (s *Calls) Mount(a MountArgs, r *CallReply) error {
	return r.answer(unix.Mount(a.Source, a.Target, a.Type, a.Flags, ""))
}

// inNamespaces starts a client in new namespaces of these kinds (CLONE_NEW…).
func inNamespaces(kinds uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.SysProcAttr.Cloneflags |= kinds }
}

// Ring writes one byte to an open bell.
func (c *client) Ring(fd int) error {
	_, err := c.call("Ring", CallArgs{FD: fd})
	return err
}

func (s *Calls) Ring(a CallArgs, r *CallReply) error {
	_, err := unix.Write(a.FD, []byte{1})
	return r.answer(err)
}

// user has execute run a command as an ordinary user.
func user(uid uint32) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid} }
}
