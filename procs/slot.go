// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind is what a slot describes.
type Kind uint8

// Kinds.
const (
	Free Kind = iota
	Connection
	Listener
	LinkGroup
)

// Role is the end of a connection or link group that a process is.
type Role uint8

// Roles.
const (
	NoRole Role = iota
	Client
	Server
)

func (r Role) String() string {
	switch r {
	case Client:
		return "client"
	case Server:
		return "server"
	}
	return "-"
}

// Mode is what carries a connection's bytes.
type Mode uint8

// Modes.
const (
	Unsettled Mode = iota // the handshake goes on
	TCP                   // fallen back
	SMCD
)

func (m Mode) String() string {
	switch m {
	case TCP:
		return "TCP"
	case SMCD:
		return "SMCD"
	}
	return "-"
}

// OffSequence is the place of a slot's sequence word: odd while the slot is being written, another number after each change.
// Whoever reads a slot takes a copy that lies between two loads of the same even number.
const OffSequence = 0

// Places that all kinds of slot have in common.
const (
	offKind = 4
	offRole = 5
)

// What is wrong with a slot.
var (
	ErrSlotLen = errors.New("slot is not 128 bytes long")
	errValue   = errors.New("out of range")
)

func badValue(what string, v uint8) error { return fmt.Errorf("slot: %s %d is %w", what, v, errValue) }

// ParseSlot reads a slot, of which c or g is set as its kind says; for a free one neither. The sequence word is left to the
// caller. It fails if a value is out of range or a text could not stand in a line of its own.
func ParseSlot(b []byte) (kind Kind, c *Conn, g *Group, err error) {
	if len(b) != SlotLen {
		return Free, nil, nil, ErrSlotLen
	}
	kind = Kind(b[offKind])
	switch kind {
	case Free:
		return Free, nil, nil, nil
	case Connection, Listener:
		c, err = parseConn(b, kind == Listener)
	case LinkGroup:
		g, err = parseGroup(b)
	default:
		err = badValue("kind", b[offKind])
	}
	if err != nil {
		return Free, nil, nil, err
	}
	return kind, c, g, nil
}

func parseRole(b []byte) (Role, error) {
	r := Role(b[offRole])
	if r > Server {
		return 0, badValue("role", b[offRole])
	}
	return r, nil
}

var native = binary.NativeEndian
