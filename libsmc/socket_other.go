// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package libsmc

import (
	"net"
	"syscall"
)

// inode: where there is no ismfs nobody asks.
func inode(syscall.Conn) uint64 { return 0 }

// fastOpen: a question only for sockets that could be marked.
func fastOpen(int) bool { return false }

// followsDecline: only connections that were marked get one.
func followsDecline(*net.TCPConn) bool { return false }

// awaitByte: only for clients of listeners that were marked.
func awaitByte(*net.TCPConn) error { return nil }

// acceptQueued: only for listeners that were marked.
func acceptQueued(syscall.RawConn) (*net.TCPConn, error) { return nil, nil }
