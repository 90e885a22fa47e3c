// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/dmb"
)

// held is what a process has of the things that can leak.
type held struct{ descriptors, mappings, goroutines int }

func holds(t *testing.T, d *daemon) held {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return held{len(fds), strings.Count(string(maps), d.point), runtime.NumGoroutine()}
}

// wantHeld waits until nothing more is held than before.
func wantHeld(t *testing.T, d *daemon, before held) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		now := holds(t, d)
		if now.descriptors <= before.descriptors && now.mappings <= before.mappings && now.goroutines <= before.goroutines {
			break
		}
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("held %+v, before %+v\n%s", now, before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
	waitFor(t, "the device to have no DMBs", func() bool {
		n, err := d.dev.DMBsCount()
		return n == 0 && err == nil
	})
}

func TestNothingLeaks(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		use := func(i int) {
			c1, c2, err := d.pair(ringSize)
			if err != nil {
				t.Fatal(err)
			}
			var calls sync.WaitGroup
			calls.Go(func() { c1.Read(make([]byte, 1)) })
			calls.Go(func() { c1.Write(make([]byte, 2*ringSize)) })
			calls.Go(func() { c2.SetDeadline(time.Now().Add(time.Hour)); c2.Read(make([]byte, 100)) })
			switch i % 4 {
			case 0:
				time.Sleep(time.Millisecond)
			case 1:
				c1.kill()
			case 2:
				c1.link.Peer.StoreProducer(^uint64(0)) // c2 fails
			}
			c1.Close()
			c2.Close()
			calls.Wait()
		}
		use(0) // what is made once
		before := holds(t, d)
		for i := range 40 {
			use(i)
		}
		wantHeld(t, d, before)
	})
}

func TestFailuresLeakNothing(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		fail := func() {
			if _, err := dmb.Register(d.dev, 4097, nil); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("Register of 4097 bytes: %v", err)
			}
			if _, err := dmb.Register(d.dev, 1<<29, nil); !errors.Is(err, syscall.EFBIG) {
				t.Errorf("Register of 512 MiB: %v", err)
			}
			if _, err := dmb.Attach(d.dev, 1, ringSize); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("Attach of an unknown token: %v", err)
			}
			e, err := d.newEndpoint(ringSize)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dmb.Attach(d.dev, e.own.Token(), 2*ringSize); !errors.Is(err, dmb.ErrSize) {
				t.Errorf("Attach with another size: %v", err)
			}
			if _, err := dmb.Attach(d.dev, e.own.Token(), ringSize); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("second Attach: %v", err)
			}
			if err := errors.Join(e.bell.Close(), e.own.Close()); err != nil {
				t.Error(err)
			}
		}
		fail()
		before := holds(t, d)
		for range 10 {
			fail()
		}
		wantHeld(t, d, before)
	})
}

// TestCloseRaces closes, kills and sets deadlines beside everything else. What it looks for is a hang, a race and a fault.
func TestCloseRaces(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for i := range 100 {
			c1, c2, err := d.pair(8192)
			if err != nil {
				t.Fatal(err)
			}
			var calls sync.WaitGroup
			for _, c := range []*Conn{c1, c2} {
				calls.Go(func() {
					for buf := make([]byte, 777); ; {
						if _, err := c.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
							return
						}
					}
				})
				calls.Go(func() {
					for buf := make([]byte, 7777); ; {
						if _, err := c.Write(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
							return
						}
					}
				})
				calls.Go(func() {
					for range 20 {
						c.SetDeadline(time.Now().Add(50 * time.Microsecond))
						c.SetDeadline(time.Time{})
					}
				})
				calls.Go(func() {
					time.Sleep(time.Duration(i) * 20 * time.Microsecond)
					c.Close()
				})
			}
			calls.Go(c1.kill)
			calls.Go(c2.checkLinks)
			done := make(chan struct{})
			go func() { calls.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(patience):
				buf := make([]byte, 1<<16)
				panic(fmt.Sprintf("round %d hangs\n%s", i, buf[:runtime.Stack(buf, true)]))
			}
		}
	})
}
