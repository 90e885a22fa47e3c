// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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

	interrupted atomic.Bool
	mu          sync.Mutex // of the file's deadline, which follows interrupted
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

// Interrupt ends the Wait that goes on, or the next one, for an event of the owner's own side. A ring would not do: the peer
// has the FIFO too, and can read it first.
func (b *Bell) Interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.interrupted.Store(true)
	b.setDeadline()
}

// setDeadline has the poller do as interrupted says. The lock is held.
func (b *Bell) setDeadline() {
	if b.file == nil {
		return
	}
	at := time.Time{}
	if b.interrupted.Load() {
		at = time.Unix(1, 0)
	}
	b.file.SetReadDeadline(at)
}

// Drain forgets what has rung or interrupted, and reports whether anything had rung. It reads once: a peer that rings all the
// time must not keep it, and what is left only ends the next Wait early.
func (b *Bell) Drain() bool {
	if b.interrupted.Load() {
		b.mu.Lock()
		b.interrupted.Store(false)
		b.setDeadline()
		b.mu.Unlock()
	}
	return readBytes(b.fd) == nil
}

// Wait sleeps, on Go's poller, until the bell rings, and swallows the ringing; or until it is interrupted. One goroutine at a
// time waits.
func (b *Bell) Wait() error {
	b.poll.Do(b.startPolling)
	if b.err != nil {
		return b.err
	}
	err := b.raw.Read(b.receive)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func (b *Bell) startPolling() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.file = os.NewFile(uintptr(b.fd), "bell")
	b.raw, b.err = b.file.SyscallConn()
	b.receive = func(fd uintptr) bool { return readBytes(int(fd)) != syscall.EAGAIN }
	b.setDeadline()
}

// Close closes the bell. A Wait that goes on ends with os.ErrClosed; no other call may go on.
func (b *Bell) Close() error {
	b.poll.Do(func() {}) // from now on the file is there or never comes
	if b.file != nil {
		return b.file.Close()
	}
	return closeFile(b.fd)
}
