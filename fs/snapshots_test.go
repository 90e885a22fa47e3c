// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/device"
)

func TestSnapshots(t *testing.T) {
	d, err := device.New(device.Config{Limits: device.DefaultLimits(1 << 30)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var s snapshots
	nobody := device.Caller{UID: 1000} // that the daemon cannot see, and so not privileged
	first, err := s.take(d, nobody, mostSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.take(d, nobody, smallSnapshot); err != nil {
		t.Errorf("a small one: %v", err)
	}
	if _, err := s.take(d, nobody, smallSnapshot+1); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := s.take(d, device.Caller{UID: 1001}, mostSnapshots); err != nil {
		t.Errorf("another uid: %v", err)
	}
	if os.Geteuid() == 0 {
		if _, err := s.take(d, device.Caller{TID: uint32(os.Getpid())}, mostSnapshots+1); err != nil {
			t.Errorf("root: %v", err)
		}
	}
	first()
	if again, err := s.take(d, nobody, mostSnapshots); err != nil {
		t.Errorf("after one was closed: %v", err)
	} else {
		again()
	}
	if len(s.perUID) != 1 {
		t.Errorf("%d uids are left", len(s.perUID))
	}
}

func TestTurns(t *testing.T) {
	d, err := device.New(device.Config{Limits: device.DefaultLimits(1 << 30)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var s snapshots
	first := s.takeTurn(d, device.Caller{UID: 1000})
	s.takeTurn(d, device.Caller{UID: 1001})() // does not wait
	second := make(chan func())
	go func() { second <- s.takeTurn(d, device.Caller{UID: 1000}) }()
	select {
	case <-second:
		t.Error("two at once")
	case <-time.After(20 * time.Millisecond):
	}
	first()
	(<-second)()
	if len(s.turns) != 0 {
		t.Errorf("%d turns are left", len(s.turns))
	}
}
