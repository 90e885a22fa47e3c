// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// inode returns the number of a connection's socket, by which other tools know it; 0 if it cannot be told.
func inode(tcp syscall.Conn) uint64 {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	var st syscall.Stat_t
	if control(raw, func(fd int) error { return syscall.Fstat(fd, &st) }) != nil {
		return 0
	}
	return st.Ino
}

// fastOpen reports whether a socket is to connect with its first bytes.
func fastOpen(fd int) bool {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT)
	return err == nil && v != 0
}
