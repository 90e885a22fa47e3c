// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. It is a limit for broken code, not a measure: raise it freely.
const patience = 20 * time.Second

// device is one daemon in the foreground with its mount.
type device struct {
	t     *testing.T
	Point string
	Dir   string // POINT/devices/loopback-ism
	cmd   *exec.Cmd
	log   *logBuffer
	ended chan struct{} // closed when the daemon has exited
	err   error         // of its exit; read after ended
}

// mountDevice starts `ismfs mount --foreground` with extra arguments on a fresh directory, and ends it with the test.
func mountDevice(t *testing.T, args ...string) *device {
	t.Helper()
	return mountDeviceOn(t, tempDir(t), args...)
}

// tempDir is t.TempDir, open to every uid.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ismfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func mountDeviceOn(t *testing.T, point string, args ...string) *device {
	t.Helper()
	return mountDeviceBy(t, nil, point, args...)
}

// mountDeviceBy has a command start the daemon, that takes privileges from it.
func mountDeviceBy(t *testing.T, command []string, point string, args ...string) *device {
	t.Helper()
	d := &device{
		t: t, Point: point, Dir: filepath.Join(point, "devices", "loopback-ism"),
		log: new(logBuffer), ended: make(chan struct{}),
	}
	command = slices.Concat(command, []string{filepath.Join(bin, "ismfs"), "mount", "--foreground", point}, args)
	d.cmd = exec.Command(command[0], command[1:]...)
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(d.stop)
	waitFor(t, "the tree of "+point, func() error {
		select {
		case <-d.ended:
			t.Fatalf("the daemon ended: %v\n%s", d.err, d.log)
		default:
		}
		_, err := os.ReadFile(filepath.Join(d.Dir, "gid"))
		return err
	})
	return d
}

// stop ends the daemon, and takes down whatever is left of its mount.
func (d *device) stop() {
	d.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(time.Second):
		d.Signal(syscall.SIGTERM) // something is open still: detach
		select {
		case <-d.ended:
		case <-time.After(patience):
			d.t.Errorf("the daemon does not end:\n%s", d.log)
			d.Signal(syscall.SIGKILL)
			<-d.ended
		}
	}
	// A daemon that was killed has left its mount and its eBPF programs; one that has taken its place left these if it ended before the test's clients.
	_, err := os.Stat(programsDir)
	if err == nil || isMounted(d.t, d.Point) {
		exec.Command(filepath.Join(bin, "ismfs"), "umount", d.Point).Run()
	}
	for syscall.Unmount(d.Point, syscall.MNT_DETACH) == nil {
	}
	if strings.Contains(d.log.String(), "DATA RACE") || strings.Contains(d.log.String(), "panic") {
		d.t.Errorf("the daemon's log:\n%s", d.log)
	}
	if d.t.Failed() {
		d.t.Logf("the daemon's log:\n%s", d.log)
	}
}

func (d *device) Signal(s syscall.Signal) {
	select {
	case <-d.ended:
	default:
		d.cmd.Process.Signal(s)
	}
}

// Kill ends the daemon as kill -9 does.
func (d *device) Kill() {
	d.Signal(syscall.SIGKILL)
	<-d.ended
}

// Path returns the path of something in the device's directory.
func (d *device) Path(name ...string) string {
	return filepath.Join(append([]string{d.Dir}, name...)...)
}

// Read returns what a control says, without the newline.
func (d *device) Read(control string) string {
	d.t.Helper()
	text, err := os.ReadFile(d.Path(control))
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// Write writes to a control as echo does.
func (d *device) Write(control, value string) error {
	return os.WriteFile(d.Path(control), []byte(value+"\n"), 0)
}

// WantCount waits until dmbs_cnt is n.
func (d *device) WantCount(n int) {
	d.t.Helper()
	waitFor(d.t, fmt.Sprintf("dmbs_cnt to be %d", n), func() error {
		if have := d.Read("dmbs_cnt"); have != fmt.Sprint(n) {
			return fmt.Errorf("it is %s", have)
		}
		return nil
	})
}

// waitFor calls try until it returns nil.
func waitFor(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %v", patience, what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// result is what a command left.
type result struct {
	Code   int
	Stdout string
	Stderr string
}

// command runs a built command or a program from PATH.
func command(t *testing.T, name string, args ...string) result {
	t.Helper()
	if built := filepath.Join(bin, name); fileExists(built) {
		name = built
	}
	cmd := exec.Command(name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// shell runs a script with sh in the device's directory and fails the test if it fails.
func (d *device) shell(script string) string {
	d.t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = d.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// logBuffer is a bytes.Buffer for two goroutines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
