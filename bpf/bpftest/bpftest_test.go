// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAlone(t *testing.T) {
	if err := flock(unix.LOCK_SH); err == nil {
		t.Error("locked before Share")
	}
	lockPath = filepath.Join(t.TempDir(), "lock")
	if err := Share(); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(lockPath)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	try := func(how int) error { return unix.Flock(int(other.Fd()), how|unix.LOCK_NB) }
	if err := try(unix.LOCK_SH); err != nil {
		t.Error("it is not shared:", err)
	}
	if err := try(unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	t.Run("alone", func(t *testing.T) {
		Alone(t)
		if err := try(unix.LOCK_SH); err != unix.EWOULDBLOCK {
			t.Error("not alone:", err)
		}
	})
	if err := try(unix.LOCK_SH); err != nil {
		t.Error("it is not shared again:", err)
	}
}
