// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A client is another process that makes system calls when the test tells it to: this test binary again, served over its
// standard input and output. So a test decides call by call which process, uid and namespace does what.
const clientVariable = "ISMFS_TEST_CLIENT"

type client struct {
	t   *testing.T
	cmd *exec.Cmd
	rpc *rpc.Client
}

// startClient starts a client; change may set its SysProcAttr (uid, capabilities, namespaces), its environment and so on.
func startClient(t *testing.T, change ...func(*exec.Cmd)) *client {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // not by its path: go test builds in a directory that only root may enter
	cmd.Env = append(os.Environ(), clientVariable+"=1")
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, f := range change {
		f(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("client: %v", err)
	}
	c := &client{t: t, cmd: cmd, rpc: jsonrpc.NewClient(pipe{out, in})}
	t.Cleanup(c.Kill)
	return c
}

// asUser runs a client as an ordinary user.
func asUser(uid uint32) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid} }
}

// Kill ends the client as kill -9 does, and waits for it.
func (c *client) Kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
	c.rpc.Close()
}

// PID is the client's process id as the test sees it.
func (c *client) PID() int { return c.cmd.Process.Pid }

// call makes one call. A failure of the transport fails the test; the call's own error is an errno.
func (c *client) call(method string, args CallArgs) (CallReply, error) {
	var reply CallReply
	err := c.rpc.Call("Calls."+method, args, &reply)
	if err != nil {
		return reply, fmt.Errorf("client: %w", err)
	}
	if reply.Errno != 0 {
		return reply, syscall.Errno(reply.Errno)
	}
	return reply, nil
}

// Open opens a file and returns the client's descriptor.
func (c *client) Open(path string, flags int) (int, error) {
	r, err := c.call("Open", CallArgs{Path: path, Flags: flags})
	return int(r.N), err
}

// MustOpen is Open for calls that have to succeed.
func (c *client) MustOpen(path string, flags int) int {
	c.t.Helper()
	fd, err := c.Open(path, flags)
	if err != nil {
		c.t.Fatalf("open %s with %#x: %v", path, flags, err)
	}
	return fd
}

func (c *client) Close(fd int) error {
	_, err := c.call("Close", CallArgs{FD: fd})
	return err
}

func (c *client) Truncate(fd int, size int64) error {
	_, err := c.call("Ftruncate", CallArgs{FD: fd, Off: size})
	return err
}

func (c *client) Pread(fd, n int, off int64) ([]byte, error) {
	r, err := c.call("Pread", CallArgs{FD: fd, Len: n, Off: off})
	return r.Data, err
}

func (c *client) Pwrite(fd int, data []byte, off int64) error {
	_, err := c.call("Pwrite", CallArgs{FD: fd, Data: data, Off: off})
	return err
}

// Mmap maps a file shared and returns the number of the mapping, for Load, Store and the rest.
func (c *client) Mmap(fd, length, prot int) (int, error) {
	r, err := c.call("Mmap", CallArgs{FD: fd, Len: length, Flags: prot})
	return int(r.N), err
}

func (c *client) Munmap(mapping int) error {
	_, err := c.call("Munmap", CallArgs{FD: mapping})
	return err
}

// Populate is madvise(MADV_POPULATE_WRITE) of a mapping; Madvise any other advice.
func (c *client) Populate(mapping int) error { return c.Madvise(mapping, unix.MADV_POPULATE_WRITE) }

func (c *client) Madvise(mapping, advice int) error {
	_, err := c.call("Madvise", CallArgs{FD: mapping, Flags: advice})
	return err
}

// Load reads bytes of a mapping, Store writes them.
func (c *client) Load(mapping, n int, off int64) ([]byte, error) {
	r, err := c.call("Load", CallArgs{FD: mapping, Len: n, Off: off})
	return r.Data, err
}

func (c *client) Store(mapping int, data []byte, off int64) error {
	_, err := c.call("Store", CallArgs{FD: mapping, Data: data, Off: off})
	return err
}

// FutexWait sleeps on the 32-bit word at off while it holds value: nil after a wake-up, EAGAIN if it held another value,
// ETIMEDOUT.
func (c *client) FutexWait(mapping int, off int64, value uint32, timeout time.Duration) error {
	_, err := c.call("FutexWait", CallArgs{FD: mapping, Off: off, Value: value, Timeout: timeout})
	return err
}

// Poll waits until a descriptor is readable: nil, or ETIMEDOUT.
func (c *client) Poll(fd int, timeout time.Duration) error {
	_, err := c.call("Poll", CallArgs{FD: fd, Timeout: timeout})
	return err
}

func (c *client) Fstat(fd int) (unix.Stat_t, error) {
	r, err := c.call("Fstat", CallArgs{FD: fd})
	return r.Stat, err
}

func (c *client) Stat(path string) (unix.Stat_t, error) {
	r, err := c.call("Stat", CallArgs{Path: path})
	return r.Stat, err
}

func (c *client) Unlink(path string) error {
	_, err := c.call("Unlink", CallArgs{Path: path})
	return err
}

// ReadDir returns the names in a directory.
func (c *client) ReadDir(path string) ([]string, error) {
	r, err := c.call("ReadDir", CallArgs{Path: path})
	return r.Names, err
}

// ReadFile and WriteFile are cat and echo.
func (c *client) ReadFile(path string) (string, error) {
	r, err := c.call("ReadFile", CallArgs{Path: path})
	return string(r.Data), err
}

func (c *client) WriteFile(path, text string) error {
	_, err := c.call("WriteFile", CallArgs{Path: path, Data: []byte(text)})
	return err
}

// SpawnHolder starts a child of the client that inherits a descriptor and holds it until it is killed, as a fork would, and
// returns its pid.
func (c *client) SpawnHolder(fd int) int {
	c.t.Helper()
	r, err := c.call("SpawnHolder", CallArgs{FD: fd})
	if err != nil {
		c.t.Fatal(err)
	}
	return int(r.N)
}

// Register makes a leased DMB: create, size, map, populate.
func (c *client) Register(d *device, token string, size int) (fd, mapping int) {
	c.t.Helper()
	fd = c.MustOpen(d.Path("dmbs", token), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err := c.Truncate(fd, int64(size)); err != nil {
		c.t.Fatalf("size of DMB %s: %v", token, err)
	}
	return fd, c.MustMap(fd, size)
}

// MustMap maps a DMB for reading and writing and populates it.
func (c *client) MustMap(fd, size int) int {
	c.t.Helper()
	m, err := c.Mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		c.t.Fatalf("mmap: %v", err)
	}
	if err := c.Populate(m); err != nil {
		c.t.Fatalf("populate: %v", err)
	}
	return m
}

// pipe is the two ends of a client's standard input and output.
type pipe struct {
	io.ReadCloser
	w io.WriteCloser
}

func (p pipe) Write(b []byte) (int, error) { return p.w.Write(b) }

func (p pipe) Close() error { return errors.Join(p.w.Close(), p.ReadCloser.Close()) }

// CallArgs are the arguments of every call; each takes what it needs.
type CallArgs struct {
	Path    string        `json:",omitempty"`
	FD      int           `json:",omitempty"` // a descriptor or the number of a mapping
	Flags   int           `json:",omitempty"`
	Len     int           `json:",omitempty"`
	Off     int64         `json:",omitempty"`
	Value   uint32        `json:",omitempty"`
	Data    []byte        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
}

type CallReply struct {
	Errno uintptr     `json:",omitempty"`
	N     int64       `json:",omitempty"`
	Data  []byte      `json:",omitempty"`
	Names []string    `json:",omitempty"`
	Stat  unix.Stat_t `json:",omitempty"`
}

// Calls is the client's side.
type Calls struct {
	mu       sync.Mutex
	mappings map[int][]byte
	last     int
}

func runClient() {
	rpc.Register(&Calls{mappings: make(map[int][]byte)})
	rpc.ServeCodec(jsonrpc.NewServerCodec(pipe{os.Stdin, os.Stdout}))
}

// answer puts an errno into the reply; any other error ends the call.
func (r *CallReply) answer(err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		r.Errno = uintptr(e)
		return nil
	}
	return err
}

func (s *Calls) mapping(n int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.mappings[n]
	if !ok {
		return nil, syscall.EBADF
	}
	return m, nil
}

func (s *Calls) Open(a CallArgs, r *CallReply) error {
	fd, err := unix.Open(a.Path, a.Flags|unix.O_CLOEXEC, 0o600)
	r.N = int64(fd)
	return r.answer(err)
}

func (s *Calls) Close(a CallArgs, r *CallReply) error { return r.answer(unix.Close(a.FD)) }

func (s *Calls) Ftruncate(a CallArgs, r *CallReply) error {
	return r.answer(unix.Ftruncate(a.FD, a.Off))
}

func (s *Calls) Pread(a CallArgs, r *CallReply) error {
	r.Data = make([]byte, a.Len)
	n, err := unix.Pread(a.FD, r.Data, a.Off)
	r.Data = r.Data[:max(n, 0)]
	return r.answer(err)
}

func (s *Calls) Pwrite(a CallArgs, r *CallReply) error {
	n, err := unix.Pwrite(a.FD, a.Data, a.Off)
	if err == nil && n < len(a.Data) {
		return io.ErrShortWrite
	}
	return r.answer(err)
}

func (s *Calls) Mmap(a CallArgs, r *CallReply) error {
	m, err := unix.Mmap(a.FD, a.Off, a.Len, a.Flags, unix.MAP_SHARED)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last++
		s.mappings[s.last] = m
		r.N = int64(s.last)
	}
	return r.answer(err)
}

func (s *Calls) Munmap(a CallArgs, r *CallReply) error {
	m, err := s.mapping(a.FD)
	if err != nil {
		return r.answer(err)
	}
	return r.answer(unix.Munmap(m))
}

func (s *Calls) Madvise(a CallArgs, r *CallReply) error {
	m, err := s.mapping(a.FD)
	if err != nil {
		return r.answer(err)
	}
	return r.answer(unix.Madvise(m, a.Flags))
}

func (s *Calls) Load(a CallArgs, r *CallReply) error {
	m, err := s.mapping(a.FD)
	if err != nil {
		return r.answer(err)
	}
	r.Data = append([]byte(nil), m[a.Off:a.Off+int64(a.Len)]...)
	return nil
}

func (s *Calls) Store(a CallArgs, r *CallReply) error {
	m, err := s.mapping(a.FD)
	if err != nil {
		return r.answer(err)
	}
	copy(m[a.Off:], a.Data)
	return nil
}

func (s *Calls) FutexWait(a CallArgs, r *CallReply) error {
	m, err := s.mapping(a.FD)
	if err != nil {
		return r.answer(err)
	}
	const futexWait = 0
	ts := unix.NsecToTimespec(int64(a.Timeout))
	for {
		_, _, e := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&m[a.Off])), futexWait, uintptr(a.Value),
			uintptr(unsafe.Pointer(&ts)), 0, 0)
		if e == unix.EINTR { // the Go runtime's own signals
			continue
		}
		if e != 0 {
			return r.answer(e)
		}
		return nil
	}
}

func (s *Calls) Poll(a CallArgs, r *CallReply) error {
	fds := []unix.PollFd{{Fd: int32(a.FD), Events: unix.POLLIN}}
	for deadline := time.Now().Add(a.Timeout); ; {
		n, err := unix.Poll(fds, int(max(time.Until(deadline).Milliseconds(), 0)))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return r.answer(err)
		case n == 0:
			return r.answer(unix.ETIMEDOUT)
		}
		return nil
	}
}

func (s *Calls) Fstat(a CallArgs, r *CallReply) error { return r.answer(unix.Fstat(a.FD, &r.Stat)) }

func (s *Calls) Stat(a CallArgs, r *CallReply) error { return r.answer(unix.Stat(a.Path, &r.Stat)) }

func (s *Calls) Unlink(a CallArgs, r *CallReply) error { return r.answer(unix.Unlink(a.Path)) }

func (s *Calls) ReadDir(a CallArgs, r *CallReply) error {
	entries, err := os.ReadDir(a.Path)
	for _, e := range entries {
		r.Names = append(r.Names, e.Name())
	}
	return r.answer(err)
}

func (s *Calls) ReadFile(a CallArgs, r *CallReply) (err error) {
	r.Data, err = os.ReadFile(a.Path)
	return r.answer(err)
}

func (s *Calls) WriteFile(a CallArgs, r *CallReply) error {
	f, err := os.OpenFile(a.Path, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.Write(a.Data)
		err = errors.Join(err, f.Close())
	}
	return r.answer(err)
}

func (s *Calls) SpawnHolder(a CallArgs, r *CallReply) error {
	dup, err := unix.FcntlInt(uintptr(a.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return r.answer(err)
	}
	f := os.NewFile(uintptr(dup), "held")
	defer f.Close()
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = []*os.File{f}
	err = cmd.Start()
	if err == nil {
		r.N = int64(cmd.Process.Pid)
		go cmd.Wait()
	}
	return r.answer(err)
}
