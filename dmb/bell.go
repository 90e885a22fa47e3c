// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/ismfs/ismfs/tree"
)

// A Bell is the FIFO of a DMB on which its owner sleeps. The kernel alone serves it: once open it works without the daemon.
type Bell struct {
	fd int

	// The poller is told of the FIFO when it is first waited on: a peer's bell is only ever rung.
	poll    sync.Once
	file    *os.File
	raw     syscall.RawConn
	err     error
	receive func(fd uintptr) (done bool)
}

// OpenBell opens the bell of a DMB.
func OpenBell(dev *tree.Device, t Token) (*Bell, error) {
	fd, err := openFIFO(filepath.Join(dev.Dir(), "bells", t.String()))
	if err != nil {
		return nil, err
	}
	return &Bell{fd: fd}, nil
}

// Ring wakes who waits, or who waits next. A full FIFO rings already.
func (b *Bell) Ring() { writeByte(b.fd) }

// Drain forgets what has rung, and reports whether anything had. It reads once: a peer that rings all the time must not keep
// it, and what is left only ends the next Wait early.
func (b *Bell) Drain() bool { return readBytes(b.fd) == nil }

// Wait sleeps, on Go's poller, until the bell rings, and swallows the ringing. One goroutine at a time waits.
func (b *Bell) Wait() error {
	b.poll.Do(b.startPolling)
	if b.err != nil {
		return b.err
	}
	return b.raw.Read(b.receive)
}

func (b *Bell) startPolling() {
	b.file = os.NewFile(uintptr(b.fd), "bell")
	b.raw, b.err = b.file.SyscallConn()
	b.receive = func(fd uintptr) bool { return readBytes(int(fd)) != syscall.EAGAIN }
}

// Close closes the bell. A Wait that goes on ends with os.ErrClosed; no other call may go on.
func (b *Bell) Close() error {
	b.poll.Do(func() {}) // from now on the file is there or never comes
	if b.file != nil {
		return b.file.Close()
	}
	return closeFile(b.fd)
}
