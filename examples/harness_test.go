// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/bpf/bpftest"
)

// patience is how long a test waits for what must come. It is a limit for broken code, not a measure: raise it freely.
const patience = 20 * time.Second

// bin is the directory of the built programs: ismfs, and examples/NAME-server and examples/NAME-client of each example.
var bin string

var names = []string{"http", "grpc", "redis"}

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if err := missing(); err != nil {
		if os.Getenv("CI") != "" {
			fmt.Fprintln(os.Stderr, "examples: CI must have it:", err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "examples: skipped:", err)
		return 0
	}
	if err := bpftest.Share(); err != nil {
		fmt.Fprintln(os.Stderr, "examples:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "ismfs-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	if err := provide(); err != nil {
		fmt.Fprintln(os.Stderr, "examples: the programs:", err)
		return 1
	}
	return m.Run()
}

// missing says what these tests need and this machine does not have.
func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// provide puts the programs into bin: those of ISMFS_TEST_BIN, which the Makefile builds as the user where the tests
// themselves run under sudo, else fresh ones.
func provide() error {
	if err := os.Mkdir(filepath.Join(bin, "examples"), 0o755); err != nil {
		return err
	}
	if err := provideOne("ismfs", "..", "./cmd/ismfs"); err != nil {
		return err
	}
	for _, name := range names {
		for _, side := range []string{"server", "client"} {
			if err := provideOne("examples/"+name+"-"+side, ".", "./"+name+"/"+side); err != nil {
				return err
			}
		}
	}
	return nil
}

// provideOne takes a program from ISMFS_TEST_BIN, and builds package pkg of a module if there is no such directory.
func provideOne(program, module, pkg string) error {
	target := filepath.Join(bin, program)
	cmd := exec.Command("go", "build", "-o", target, pkg)
	if from := os.Getenv("ISMFS_TEST_BIN"); from != "" {
		cmd = exec.Command("cp", filepath.Join(from, program), target)
	} else {
		cmd.Dir = module
	}
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// A process is a program that runs, with its output.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}
	lines chan struct{} // gets one, at most, when output has come

	mu     sync.Mutex
	output []string // standard output and error, line by line
}

// start starts an example, with the device that mount names, and ends it with the test.
func start(t *testing.T, mount, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan struct{}), lines: make(chan struct{}, 1)}
	p.cmd = exec.Command(filepath.Join(bin, "examples", program), args...)
	p.cmd.Env = append(os.Environ(), "ISMFS_MOUNT="+mount)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go p.read(r)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%s %v:\n%s", program, args, p)
		}
	})
	return p
}

func (p *process) read(r *os.File) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		p.mu.Lock()
		p.output = append(p.output, lines.Text())
		p.mu.Unlock()
		select {
		case p.lines <- struct{}{}:
		default:
		}
	}
	r.Close()
	p.cmd.Wait()
	close(p.ended)
}

func (p *process) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.output, "\n")
}

// expect waits for a line that begins with prefix, and returns what follows.
func (p *process) expect(prefix string) string {
	p.t.Helper()
	over := time.After(patience)
	for {
		if found := p.find(prefix); len(found) > 0 {
			return found[0]
		}
		select {
		case <-p.lines:
		case <-p.ended:
			if len(p.find(prefix)) == 0 {
				p.t.Fatalf("%s has ended, %v, without %q", p.cmd.Path, p.cmd.ProcessState, prefix)
			}
		case <-over:
			p.t.Fatalf("waited %v for %s to say %q", patience, p.cmd.Path, prefix)
		}
	}
}

// find returns what follows prefix in the lines that begin with it.
func (p *process) find(prefix string) (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.output {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			found = append(found, rest)
		}
	}
	return found
}

// wait waits for the exit and wants this code.
func (p *process) wait(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("waited %v for %s to end", patience, p.cmd.Path)
	}
	if p.cmd.ProcessState.ExitCode() != code {
		p.t.Errorf("%s: %v; want exit code %d", p.cmd.Path, p.cmd.ProcessState, code)
	}
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// mountDevice mounts a device, and unmounts it with the test by `ismfs umount` with these flags.
func mountDevice(t *testing.T, flags ...string) (point string) {
	t.Helper()
	point, err := os.MkdirTemp("", "ismfs-examples-mount-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(point) })
	if out, err := exec.Command(filepath.Join(bin, "ismfs"), "mount", point).CombinedOutput(); err != nil {
		t.Fatalf("ismfs mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(filepath.Join(bin, "ismfs"), append([]string{"umount", point}, flags...)...).CombinedOutput(); err != nil {
			t.Errorf("ismfs umount: %v\n%s", err, out)
			exec.Command(filepath.Join(bin, "ismfs"), "umount", "--force", point).Run()
		}
	})
	return point
}

// read returns what a control says.
func read(t *testing.T, point, control string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(point, "devices", "loopback-ism", control))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
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
