// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"net"
	"os"
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

// acceptQueued accepts a connection that a listening socket has queued, without waiting; nil if there is none.
func acceptQueued(listener syscall.RawConn) (*net.TCPConn, error) {
	var fd int
	err := control(listener, func(l int) (err error) {
		for {
			fd, _, err = unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != unix.EINTR && err != unix.ECONNABORTED {
				return err
			}
		}
	})
	switch {
	case err == unix.EAGAIN:
		return nil, nil
	case err != nil:
		return nil, os.NewSyscallError("accept4", err)
	}
	f := os.NewFile(uintptr(fd), "accepted")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
