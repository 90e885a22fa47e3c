// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Syscall makes any system call. An argument is an int, a string (its address is passed) or a mappingAt.
func (c *client) Syscall(number uintptr, args ...any) (int64, error) {
	c.t.Helper()
	s := SyscallArgs{Number: number}
	for _, a := range args {
		switch a := a.(type) {
		case int:
			s.Args = append(s.Args, SyscallArg{Int: int64(a)})
		case int64:
			s.Args = append(s.Args, SyscallArg{Int: a})
		case string:
			s.Args = append(s.Args, SyscallArg{Text: &a})
		case mappingAt:
			s.Args = append(s.Args, SyscallArg{Mapping: a.mapping, Int: int64(a.offset)})
		default:
			c.t.Fatalf("Syscall with a %T", a)
		}
	}
	var reply CallReply
	if err := c.rpc.Call("Calls.Syscall", s, &reply); err != nil {
		return 0, fmt.Errorf("client: %w", err)
	}
	if reply.Errno != 0 {
		return 0, syscall.Errno(reply.Errno)
	}
	return reply.N, nil
}

// mappingAt is an address in one of a client's mappings.
type mappingAt struct{ mapping, offset int }

type SyscallArgs struct {
	Number uintptr
	Args   []SyscallArg
}

type SyscallArg struct {
	Int     int64   `json:",omitempty"`
	Text    *string `json:",omitempty"`
	Mapping int     `json:",omitempty"`
}

func (s *Calls) Syscall(a SyscallArgs, r *CallReply) error {
	var raw [6]uintptr
	var keep []any
	for i, arg := range a.Args {
		switch {
		case arg.Text != nil:
			text := append([]byte(*arg.Text), 0)
			raw[i] = uintptr(unsafe.Pointer(&text[0]))
			keep = append(keep, text)
		case arg.Mapping != 0:
			m, err := s.mapping(arg.Mapping)
			if err != nil {
				return r.answer(err)
			}
			raw[i] = uintptr(unsafe.Pointer(&m[0])) + uintptr(arg.Int)
		default:
			raw[i] = uintptr(arg.Int)
		}
	}
	n, _, e := unix.Syscall6(a.Number, raw[0], raw[1], raw[2], raw[3], raw[4], raw[5])
	runtime.KeepAlive(keep)
	if e != 0 {
		return r.answer(e)
	}
	r.N = int64(n)
	return nil
}

// Fallocate is fallocate(2).
func (c *client) Fallocate(fd, mode int, off, length int64) error {
	c.t.Helper()
	_, err := c.Syscall(unix.SYS_FALLOCATE, fd, mode, off, length)
	return err
}

// MadviseRange is madvise of a part of a mapping.
func (c *client) MadviseRange(mapping, off, length, advice int) error {
	c.t.Helper()
	_, err := c.Syscall(unix.SYS_MADVISE, mappingAt{mapping, off}, length, advice)
	return err
}

// Self returns the client's procs id.
func (c *client) Self(d *device) string {
	c.t.Helper()
	r, err := c.call("Readlink", CallArgs{Path: d.Path("procs", "self")})
	if err != nil {
		c.t.Fatalf("readlink procs/self: %v", err)
	}
	return string(r.Data)
}

func (s *Calls) Readlink(a CallArgs, r *CallReply) error {
	target, err := os.Readlink(a.Path)
	r.Data = []byte(target)
	return r.answer(err)
}

// Become gives up the client's uid, in all its threads.
func (c *client) Become(uid int) error {
	_, err := c.call("Become", CallArgs{FD: uid})
	return err
}

func (s *Calls) Become(a CallArgs, r *CallReply) error { return r.answer(syscall.Setuid(a.FD)) }

// Reopen makes a DMB without a size, closes it, opens it again before the device can have heard of the close, gives it a page
// and removes it, n times, and returns how often it could then write beyond the page.
func (c *client) Reopen(dir string, n int) (int, error) {
	r, err := c.call("Reopen", CallArgs{Path: dir, Len: n})
	return int(r.N), err
}

func (s *Calls) Reopen(a CallArgs, r *CallReply) error {
	for i := range a.Len {
		path := filepath.Join(a.Path, tokenOf(i))
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0)
		if err == nil {
			unix.Close(fd)
			fd, err = unix.Open(path, unix.O_RDWR, 0)
		}
		if err == nil {
			err = unix.Ftruncate(fd, 4096)
		}
		if err != nil {
			return r.answer(err)
		}
		if _, err := unix.Pwrite(fd, []byte("x"), 4096); err == nil {
			r.N++
		}
		if err := errors.Join(unix.Unlink(path), unix.Close(fd)); err != nil {
			return r.answer(err)
		}
	}
	return nil
}

// blockSize is the size of the procs blocks that the tests make.
const blockSize = 4096

// Block makes the client's procs block and maps it.
func (c *client) Block(d *device) (fd, mapping int) {
	c.t.Helper()
	fd = c.MustOpen(d.Path("procs", "self"), unix.O_RDWR|unix.O_CREAT)
	if err := c.Truncate(fd, blockSize); err != nil {
		c.t.Fatalf("size of a procs block: %v", err)
	}
	return fd, c.MustMap(fd, blockSize)
}

// Word loads 32 bits of a mapping, Word64 64 bits.
func (c *client) Word(mapping int, off int64) uint32 {
	c.t.Helper()
	return binary.NativeEndian.Uint32(c.mustLoad(mapping, 4, off))
}

func (c *client) Word64(mapping int, off int64) uint64 {
	c.t.Helper()
	return binary.NativeEndian.Uint64(c.mustLoad(mapping, 8, off))
}

func (c *client) mustLoad(mapping, n int, off int64) []byte {
	c.t.Helper()
	b, err := c.Load(mapping, n, off)
	if err != nil {
		c.t.Fatalf("load: %v", err)
	}
	return b
}

// SetCounter stores counter number i of a procs block (docs/dmb-format.md, 3.2).
func (c *client) SetCounter(mapping, i int, v uint64) {
	c.t.Helper()
	if err := c.Store(mapping, binary.NativeEndian.AppendUint64(nil, v), int64(64+8*i)); err != nil {
		c.t.Fatal(err)
	}
}

// Sleeper lets the client sleep on a futex word as it is now, and returns when it really sleeps. The channel gives how it
// ended: nil if it was woken.
func (c *client) Sleeper(mapping int, off int64) <-chan error {
	c.t.Helper()
	value := c.Word(mapping, off)
	done := make(chan error, 1)
	go func() {
		err := c.FutexWait(mapping, off, value, patience)
		if err == unix.EAGAIN { // a signal of the Go runtime's made it look again, and the word had moved
			err = nil
		}
		done <- err
	}()
	waitFor(c.t, "a client to sleep on a futex", func() error {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", c.PID()))
		for _, f := range files {
			// number, then the arguments; the Go runtime's own waits are private ones (operation 0x80)
			text, _ := os.ReadFile(f)
			field := strings.Fields(string(text))
			if len(field) > 4 && field[0] == fmt.Sprint(unix.SYS_FUTEX) && field[2] == "0x0" {
				return nil
			}
		}
		return fmt.Errorf("no thread does")
	})
	return done
}

// wantWoken fails unless a Sleeper was woken.
func wantWoken(t *testing.T, sleeper <-chan error) {
	t.Helper()
	select {
	case err := <-sleeper:
		if err != nil {
			t.Errorf("the sleeper ends with %v", err)
		}
	case <-time.After(patience + time.Second):
		t.Error("the sleeper is not woken")
	}
}

// deviceStats is the part of stats that the tests look at.
type deviceStats struct {
	SMCD   map[string]uint64
	Device struct {
		State     string
		Epoch     uint64
		DMBs      int
		Bytes     int64
		Processes []struct {
			ID, DMBs int
			PID      int
			UID      int
		}
		Liars []struct {
			PID, UID int
			Why      string
		}
	}
}

func parseStats(t *testing.T, text string) deviceStats {
	t.Helper()
	var s deviceStats
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("stats: %v in %q", err, text)
	}
	return s
}

// Stats reads stats as the test's own process.
func (d *device) Stats() deviceStats {
	d.t.Helper()
	return parseStats(d.t, d.Read("stats"))
}

// Stats reads stats as the client.
func (c *client) Stats(d *device) deviceStats {
	c.t.Helper()
	text, err := c.ReadFile(d.Path("stats"))
	if err != nil {
		c.t.Fatal(err)
	}
	return parseStats(c.t, text)
}

// WantNothing waits until the device knows no DMB, no byte and no process.
func (d *device) WantNothing() {
	d.t.Helper()
	waitFor(d.t, "the device to be empty", func() error {
		if s := d.Stats().Device; s.DMBs != 0 || s.Bytes != 0 || len(s.Processes) != 0 {
			return fmt.Errorf("it has %d DMBs, %d bytes, processes %v", s.DMBs, s.Bytes, s.Processes)
		}
		return nil
	})
}

// wantErrno fails unless err is or holds an errno (nil for success).
func wantErrno(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, not %v", what, err, want)
	}
}

const (
	readWrite = unix.O_RDWR
	register  = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
)

// tokenOf makes a token for the test's n-th DMB.
func tokenOf(n int) string { return fmt.Sprintf("%016x", 0xd0b0000000000000+uint64(n)) }
