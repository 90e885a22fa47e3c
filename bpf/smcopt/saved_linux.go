// SPDX-License-Identifier: Apache-2.0

package smcopt

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Silent reports whether an accepted connection began with a SYN that announced no SMC. Then its client was promised nothing,
// and the connection is plain although [Ask] fails, as it does once the programs have been removed. False also means that it
// cannot be told, as of a listener that was never marked. It can be asked once: the kernel forgets the SYN then.
func Silent(fd int) bool {
	syn, err := savedSYN(fd)
	if err != nil {
		return false
	}
	has, ok := announces(syn)
	return ok && !has
}

// savedSYN returns the SYN of a connection, from its IP header on, which the kernel keeps where the listener has TCP_SAVE_SYN.
func savedSYN(fd int) ([]byte, error) {
	b := make([]byte, 512) // two headers are at most 60 bytes each, but for IPv6's extensions
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return nil, errno
	}
	return b[:n], nil
}
