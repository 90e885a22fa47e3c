// SPDX-License-Identifier: Apache-2.0

package smcopt

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// The socket option's value is one word: a verb or an answer, then a tag. It travels as a uint64 in host order, so that
// x/sys can carry it.
const (
	unmark = 0
	mark   = 1
)

func word(head uint8, tag Tag) (b [8]byte) {
	b[0] = head
	copy(b[1:], tag[:])
	return b
}

// Mark makes a TCP socket announce SMC for the device with this tag: a client in its SYN, a listener in answer to SYNs of
// clients on this host. The socket must not be connected. Marking a marked socket changes its tag, also while it listens.
func Mark(fd int, tag Tag) error {
	if err := set(fd, Name, word(mark, tag)); err != nil {
		return fmt.Errorf("marking a socket for device %s: %w", tag, err)
	}
	return nil
}

// Unmark takes a mark back, also while the socket listens. What was announced stays announced: accepted sockets whose SYN has
// been answered are still [SMC]. It is no error if the socket has no mark.
func Unmark(fd int) error {
	if err := set(fd, Name, word(unmark, Tag{})); err != nil {
		return fmt.Errorf("un-marking a socket: %w", err)
	}
	return nil
}

// Ask returns what the peer has said. It may be called again, and then returns the same. Before the connection stands it
// returns ENOTCONN.
func Ask(fd int) (Answer, error) {
	a, err := get(fd, Name)
	if err != nil {
		return a, fmt.Errorf("asking a socket for SMC: %w", err)
	}
	return a, nil
}

func set(fd, name int, value [8]byte) error {
	return meaning(unix.SetsockoptUint64(fd, Level, name, binary.NativeEndian.Uint64(value[:])))
}

func get(fd, name int) (Answer, error) {
	v, err := unix.GetsockoptUint64(fd, Level, name)
	if err != nil {
		return Answer{}, meaning(err)
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	a := Answer{State: State(b[0]), Tag: Tag(b[1:])}
	if a.State < Plain || a.State > Listener {
		return Answer{}, fmt.Errorf("answer % x is none: %w", b, unix.EPROTO)
	}
	return a, nil
}

func meaning(err error) error {
	switch err {
	case unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		return fmt.Errorf("%w: %w", ErrNoPrograms, err)
	case unix.ENODEV:
		return fmt.Errorf("%w: %w", ErrNoDevice, err)
	case unix.ENODATA:
		return fmt.Errorf("%w: %w", ErrNotMarked, err)
	}
	return err
}
