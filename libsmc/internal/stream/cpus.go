// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"runtime"
	"sync/atomic"
	"time"
)

var start = time.Now()

// clock returns the time since start, in nanoseconds.
func clock() int64 { return int64(time.Since(start)) }

// host is what this process knows of the CPUs on which it runs.
var host cpus

type cpus struct {
	until  atomic.Int64  // when to ask again
	usable atomic.Int32  // CPUs that this process may use at once
	place  atomic.Uint32 // the one CPU on which it may run, plus 1; 0: there are several
	asked  atomic.Bool   // whether the quota was looked up
	quota  atomic.Bool   // CPU time is rationed: what is spun away is missing later

	// Spinning is off until busyUntil, since others wanted the CPU: for busyFor, which doubles each time.
	busyUntil, busyFor atomic.Int64
	taken              atomic.Int64 // when the CPU was last taken away
}

const (
	askAgain = int64(time.Second)

	leastBusy = int64(50 * time.Millisecond)
	mostBusy  = int64(2 * time.Second)

	// takenAgain is within what time the CPU is taken away again where a program competes for it, since that has its share every few
	// milliseconds. Now and then (once a second, on a virtual machine) it is only the hypervisor or the kernel.
	takenAgain = int64(20 * time.Millisecond)
)

// procs returns how many CPUs the process uses at once: GOMAXPROCS, or fewer if it is pinned.
func (h *cpus) procs(now int64) int32 {
	if now < h.until.Load() {
		return h.usable.Load()
	}
	h.until.Store(now + askAgain)
	n := runtime.GOMAXPROCS(0)
	place := 0
	if count, one := affinity(); count > 0 {
		n = min(n, count)
		if count == 1 {
			place = one + 1
		}
	}
	h.usable.Store(int32(n))
	h.place.Store(uint32(place))
	if !h.asked.Swap(true) {
		h.quota.Store(hasCPUQuota())
	}
	return int32(n)
}

// idle reports whether the time of a CPU may be spent on looking for news: it is not rationed, and nobody else has wanted it
// lately.
func (h *cpus) idle(now int64) bool {
	h.procs(now)
	return !h.quota.Load() && now >= h.busyUntil.Load()
}

// contended says that the CPU was taken away between two moments in which this program was looking for news. If another one
// competes for it, looking stops: a program that sleeps gets the CPU at once when its news has come; one that has used its
// share up waits behind the others.
func (h *cpus) contended(began, now int64) {
	last := h.taken.Swap(now)
	if last == 0 || now-last > takenAgain || began < last || now < h.busyUntil.Load() {
		return // once; or several goroutines speak of the same time
	}
	d := min(2*h.busyFor.Load(), mostBusy)
	if d == 0 || now-h.busyUntil.Load() > mostBusy {
		d = leastBusy // the first time, or for long
	}
	h.busyFor.Store(d)
	h.busyUntil.Store(now + d)
}
