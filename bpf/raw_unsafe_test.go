// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connectRaw connects to an address of any family, such as AF_UNSPEC, which disconnects.
func connectRaw(fd int, addr []byte) syscall.Errno {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&addr[0])), uintptr(len(addr)))
	return e
}

// getsockopt reads into a buffer of any length.
func getsockopt(fd, level, name int, value []byte) (n int, e syscall.Errno) {
	size := uint32(len(value))
	_, _, e = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	return int(size), e
}
