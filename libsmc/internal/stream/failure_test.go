// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFailedWriteThenClose: a connection that failed in the middle of a write refuses the next call after Close, and does not
// touch what is unmapped.
func TestFailedWriteThenClose(t *testing.T) {
	d := modes["copied"].started(t)
	c1, c2 := d.mustPair(t, ringSize)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := writeOnly(t, c1.link.Peer.Token().String())
	kept, err := unix.Dup(fd) // else the device hears that this process has let go of the DMB, and tells the connection
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	if err := unix.Dup2(int(null.Fd()), fd); err != nil {
		t.Fatal(err)
	}
	if _, err := c1.Write(make([]byte, 2*ringSize)); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Write that cannot: %v", err)
	}
	c1.Close()
	c2.Close()
	waitFor(t, "the link to be given back", func() bool {
		c1.mu.Lock()
		defer c1.mu.Unlock()
		return c1.freed
	})
	time.Sleep(50 * time.Millisecond)
	if _, err := c1.Reserve(1); err == nil {
		t.Error("Reserve after Close")
	}
}

// writeOnly finds this process's descriptor by which it writes a DMB.
func writeOnly(t *testing.T, token string) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		fd, _ := strconv.Atoi(e.Name())
		path, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil && strings.HasSuffix(path, "dmbs/"+token) && flags&unix.O_ACCMODE == unix.O_WRONLY {
			return fd
		}
	}
	t.Fatalf("nobody writes DMB %s", token)
	return -1
}
