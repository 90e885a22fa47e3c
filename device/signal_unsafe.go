// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	futexWakeOp = 5 // FUTEX_WAKE_OP; without FUTEX_PRIVATE_FLAG the waiters of other processes count
	// futexAddOne is FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0): add 1 to the second word, and wake its waiters as
	// well if it was 0. Both words are the same one here, and the first half has woken everybody already.
	futexAddOne = 1<<28 | 1<<12
)

// signal adds 1 to the 32-bit word at off of the memory's first page and wakes who sleeps on it. The kernel does the
// addition: where the page has been punched out and cannot be had again the answer is EFAULT, while a store by the daemon
// itself would be SIGBUS and its end.
func (m *memory) signal(off uintptr) error {
	if m.firstPage == nil {
		page, err := unix.Mmap(m.fd, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("mmap of a memfd: %w", err)
		}
		m.firstPage = page
	}
	word := uintptr(unsafe.Pointer(&m.firstPage[off]))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, word, futexWakeOp, math.MaxInt32, 0, word, futexAddOne)
	if errno != 0 {
		return fmt.Errorf("futex: %w", errno)
	}
	return nil
}
