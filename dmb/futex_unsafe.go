// SPDX-License-Identifier: Apache-2.0

//go:build linux

package dmb

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The operations without FUTEX_PRIVATE_FLAG: the other side is another process.
const (
	futexWaitOp = 0
	futexWakeOp = 1
)

// futexWait sleeps while *word is value, at most for timeout if that is not 0. Interruptions and a value that has changed
// count as being woken.
func futexWait(word *atomic.Uint32, value uint32, timeout time.Duration) (timedOut bool) {
	var limit *unix.Timespec
	if timeout != 0 {
		ts := unix.NsecToTimespec(int64(timeout))
		limit = &ts
	}
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWaitOp, uintptr(value),
		uintptr(unsafe.Pointer(limit)), 0, 0)
	return errno == unix.ETIMEDOUT
}

// futexWake wakes up to n sleepers. It never blocks, so the scheduler need not know.
func futexWake(word *atomic.Uint32, n int) {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakeOp, uintptr(n), 0, 0, 0)
}
