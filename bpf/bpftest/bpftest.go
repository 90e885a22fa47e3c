// SPDX-License-Identifier: Apache-2.0

// Package bpftest keeps tests of different packages apart that mount devices, and so meet in the one set of eBPF programs
// that a host has. `go test ./...` runs such packages at the same time.
//
// Sharing the set is what it is made for, and most tests need not care: each device has a tag of its own. But some must have
// the set to themselves: those that look whether it is gone after the last unmount, or take it away. And what a killed daemon
// has left, its tag, goes whenever the last living one leaves, of whatever package. So a package that mounts calls [Share] in
// its TestMain, and a test that must be alone calls [Alone].
//
// It is only for tests whose daemons attach programs: a test that needs no sockets mounts with --sockets=off.
package bpftest

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// lockPath is the lock of this machine. The tests that take it are root's.
var lockPath = "/run/ismfs-tests.lock"

var lock *os.File

// Share waits until no test has to be alone, and keeps it so as long as this process lives.
func Share() error {
	f, err := os.OpenFile(lockPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	lock = f
	return flock(unix.LOCK_SH)
}

// Alone waits until no other process shares, and has it stay alone until the test ends. It needs [Share].
func Alone(t testing.TB) {
	t.Helper()
	if err := flock(unix.LOCK_EX); err != nil { // lets go of the shared lock first, so that two who wait do not block each other
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := flock(unix.LOCK_SH); err != nil {
			t.Error(err)
		}
	})
}

func flock(how int) error {
	if lock == nil {
		return errors.New("bpftest.Share was not called")
	}
	for {
		err := unix.Flock(int(lock.Fd()), how)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("locking %s: %w", lockPath, err)
		}
	}
}
