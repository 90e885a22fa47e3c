// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/smc"
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

// followsDecline reports whether a Decline is what a connection has to be read next.
func followsDecline(tcp *net.TCPConn) (is bool) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	err = control(raw, func(fd int) error {
		b := make([]byte, smc.MaxMessageLen)
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != nil || n < smc.HeaderLen {
			return err
		}
		h, err := smc.ParseHeader(b[:smc.HeaderLen])
		is = err == nil && h.Type == smc.MsgDecline && int(h.Length) <= n
		return err
	})
	return is && err == nil
}

// awaitByte waits until there is something to read, or the end, for as long as the read deadline allows.
func awaitByte(tcp *net.TCPConn) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	})
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
