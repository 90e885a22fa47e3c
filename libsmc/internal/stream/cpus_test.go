// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"testing"
	"time"
)

// A CPU that is taken away once is not contended for; one that is taken away again and again is, for longer and longer.
func TestContended(t *testing.T) {
	const ms = int64(time.Millisecond)
	var h cpus
	idle := func(now int64) bool { return now >= h.busyUntil.Load() }
	now := int64(time.Hour)
	for range 100 { // by the hypervisor
		now += 500 * ms
		if h.contended(now-ms, now); !idle(now) {
			t.Fatal("once is too often")
		}
	}
	now += 500 * ms
	for want := leastBusy; want < 2*mostBusy; want *= 2 { // by a program, as soon as this one looks for news again
		h.contended(now-ms, now)
		h.contended(now-ms, now) // by another goroutine
		if !idle(now) {
			t.Error("one time counts twice")
		}
		h.contended(now+3*ms, now+4*ms)
		h.contended(now+5*ms, now+6*ms) // it looks as long as it had begun to
		now += 4*ms + min(want, mostBusy)
		if idle(now-1) || !idle(now) {
			t.Errorf("not off for %v", time.Duration(min(want, mostBusy)))
		}
	}
	now += 2 * mostBusy
	h.contended(now-ms, now)
	h.contended(now+3*ms, now+4*ms)
	if idle(now+4*ms+leastBusy-1) || !idle(now+4*ms+leastBusy) {
		t.Error("what was long ago counts")
	}
}
