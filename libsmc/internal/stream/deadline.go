// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A deadline is the time after which a direction's calls fail. A timer watches it, so that no call needs to ask the time.
type deadline struct {
	passed atomic.Bool
	fire   func() // what the timer does; set once

	mu    sync.Mutex
	at    time.Time // zero: none
	timer *time.Timer
}

func (d *deadline) err() error {
	if d.passed.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// set sets the time, and reports whether it has come already.
func (d *deadline) set(at time.Time) (passed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = at
	left := time.Until(at)
	passed = !at.IsZero() && left <= 0
	d.passed.Store(passed)
	switch {
	case at.IsZero() || passed:
		d.stopLocked()
	case d.timer == nil:
		d.timer = time.AfterFunc(left, d.fire)
	default:
		d.timer.Reset(left)
	}
	return passed
}

// expire reports whether the time has come, of which the calls hear from now on. A timer that was early, since set has moved
// the time meanwhile, goes on.
func (d *deadline) expire() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return false
	}
	if left := time.Until(d.at); left > 0 {
		d.timer.Reset(left)
		return false
	}
	d.passed.Store(true)
	return true
}

// stop ends the timer for good.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Time{}
	d.stopLocked()
}

func (d *deadline) stopLocked() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
