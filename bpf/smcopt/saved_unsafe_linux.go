// SPDX-License-Identifier: Apache-2.0

package smcopt

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// PlainSYN reports whether an accepted connection's client has surely not announced SMC: its SYN says so, which the kernel
// saves for a listener that was marked, and gives out once. It needs no programs, so it tells where [Ask] fails.
func PlainSYN(fd int) bool {
	var b [256]byte // IP and TCP have at most 120
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
		uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), 0)
	return errno == 0 && plainSYN(b[:n])
}
