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

// set sets the time. rouse wakes who sleeps, once the time has come; it is the same function at every call.
func (d *deadline) set(at time.Time, rouse func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = at
	left := time.Until(at)
	switch {
	case at.IsZero():
		d.passed.Store(false)
		d.stopLocked()
	case left <= 0:
		d.passed.Store(true)
		d.stopLocked()
		rouse()
	case d.timer == nil:
		d.passed.Store(false)
		d.timer = time.AfterFunc(left, func() { d.fire(rouse) })
	default:
		d.passed.Store(false)
		d.timer.Reset(left)
	}
}

// fire is the timer's. A set that came in between has set the timer anew, or wants none.
func (d *deadline) fire(rouse func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return
	}
	if left := time.Until(d.at); left > 0 {
		d.timer.Reset(left)
		return
	}
	d.passed.Store(true)
	rouse()
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
