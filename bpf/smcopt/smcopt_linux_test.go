// SPDX-License-Identifier: Apache-2.0

package smcopt

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A socket that cannot be asked gives the error that says so, whether programs are attached or not.
func TestNotTCP(t *testing.T) {
	for _, kind := range [][2]int{{unix.AF_UNIX, unix.SOCK_STREAM}, {unix.AF_INET, unix.SOCK_DGRAM}} {
		fd, err := unix.Socket(kind[0], kind[1]|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := Mark(fd, Tag{1}); !errors.Is(err, ErrNoPrograms) {
			t.Errorf("mark: %v", err)
		}
		if err := Unmark(fd); !errors.Is(err, ErrNoPrograms) {
			t.Errorf("unmark: %v", err)
		}
		if a, err := Ask(fd); !errors.Is(err, ErrNoPrograms) || a != (Answer{}) {
			t.Errorf("ask: %v %v", a, err)
		}
	}
	if _, err := Ask(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
}
