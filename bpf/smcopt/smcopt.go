// SPDX-License-Identifier: Apache-2.0

// Package smcopt is the side of the SMC TCP option that a socket sees. An ordinary TCP socket asks for the option with one
// setsockopt and reads with one getsockopt whether the peer had it, too. Both are answered by the eBPF programs that package
// bpf attaches, and need no privilege:
//
//   - A client calls [Mark] before connect, and [Ask] after it.
//   - A listener calls [Mark] before or after listen. On each accepted socket the server calls [Ask].
//
// MPTCP sockets cannot be marked. Go makes them by default for listeners, so use SetMultipathTCP(false), on the dialler too.
//
// On an accepted connection [ErrNotMarked] is the same as [Plain], whether the listener is marked or not: its client was told
// nothing. On a client that was marked, and on a connection from a listener that was marked, any other error of Ask is never
// the same as [Plain]: the peer may have been told SMC, and may be sending a Proposal. Reset the connection, unless it is an
// accepted one and [Silent].
//
// A mark lives in the socket, not in the process. Before a listener goes to a program that does not know of it, call
// [Unmark], and then accept and ask until the queue is empty: what was promised to a client stays promised.
//
// The package needs nothing but golang.org/x/sys and builds everywhere; where there is no such option its functions return
// [ErrNoPrograms].
package smcopt

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// Level is the level of the socket option (SOL_SMC).
const Level = 286

// Name is the number of the socket option. Its last byte is the version of its value; the kernel's own options at this level
// are small numbers.
const Name = 0x49534d01

// The TCP option. The kernel's own ends after the magic; ours goes on with a direction (1 byte) and a [Tag].
const (
	Kind       = 254        // TCPOPT_EXP
	Magic      = 0xE2D4C3D9 // TCPOPT_SMC_MAGIC
	Len        = 14
	KernelLen  = 6 // TCPOLEN_EXP_SMC_BASE
	FromClient = 1 // the direction, in a SYN
	FromServer = 2 // in a SYN-ACK
)

// TagLen is the length of a tag in bytes.
const TagLen = 7

// A Tag names a device on the wire.
type Tag [TagLen]byte

// TagOf returns the tag of the device with this GID: its last seven bytes, all random in a UUID of version 4.
func TagOf(gid [16]byte) Tag { return Tag(gid[len(gid)-TagLen:]) }

// String returns the tag as 14 hex digits: the end of the GID's text.
func (t Tag) String() string { return hex.EncodeToString(t[:]) }

// ParseTag is the reverse of [Tag.String].
func ParseTag(s string) (Tag, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != TagLen {
		return Tag{}, fmt.Errorf("tag %q is not of %d hex digits", s, 2*TagLen)
	}
	return Tag(b), nil
}

// State is what a socket's question is answered with.
type State uint8

const (
	// Plain: no option from the peer that would count. Not one byte of CLC may be sent or waited for.
	Plain State = 1
	// SMC: the peer has been told, or has told us, that this side speaks SMC. For a client the tag is its own. For a server it
	// is the client's, that of any device on this host: the client sends a Proposal, which a server on another device
	// declines.
	SMC State = 2
	// Kernel: the server's SYN-ACK has the kernel's option. It waits for a Proposal: send one, and take its Decline.
	Kernel State = 3
	// Listener: this socket listens and is marked.
	Listener State = 4
)

func (s State) String() string {
	switch s {
	case Plain:
		return "plain"
	case SMC:
		return "SMC"
	case Kernel:
		return "kernel SMC"
	case Listener:
		return "marked listener"
	}
	return "no answer"
}

// An Answer is a state with the tag that goes with it: the peer's, or of a listener its own.
type Answer struct {
	State State
	Tag   Tag
}

// Errors. They wrap the errno.
var (
	// ErrNoPrograms: the socket option does not exist. The programs are not attached here, or the socket is not TCP.
	ErrNoPrograms = errors.New("no SMC option for this socket (ismfs doctor tells more)")
	// ErrNoDevice: no device on this host has the tag: it never had, or has not any more.
	ErrNoDevice = errors.New("the device takes no sockets: it was mounted with --sockets=off, or its programs could not be attached")
	// ErrNotMarked: the socket was not marked, and if it was accepted, its client was told nothing.
	ErrNotMarked = errors.New("the socket was never marked")
)
