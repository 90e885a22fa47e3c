// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Mode is what carries a connection's bytes, as conns says it.
type Mode string

const (
	ModeSMCD      Mode = "SMCD"
	ModeTCP       Mode = "TCP"    // fallen back; Reason says why
	ModeListen    Mode = "LISTEN" // a listener
	ModeUnsettled Mode = "-"      // its handshake goes on
)

// A Conn is a line of conns. UID, PID, NetNS, both headers and the sizes are the device's knowledge, the rest is what the
// process says of itself.
type Conn struct {
	State  string         `json:"state"` // the kernel's name: ACTIVE, INIT, CLOSED, LISTEN, PEERCLOSEWAIT1, ...
	UID    uint32         `json:"uid"`
	PID    int            `json:"pid"`    // in the daemon's pid namespace
	NetNS  uint64         `json:"net_ns"` // inode number of the network namespace; 0: unknown
	Local  netip.AddrPort `json:"local"`
	Peer   netip.AddrPort `json:"peer"` // not valid for a listener
	Mode   Mode           `json:"mode"`
	Reason uint32         `json:"reason"` // of a fallback to TCP, an smc.DeclineCode; 0: none
	// PeerDiagnosis is the reason that the peer gave, if it was the peer that declined.
	PeerDiagnosis uint32  `json:"peer_diagnosis"`
	Token         string  `json:"token"` // of the own DMB, 16 hex digits; "" if there is none that the device knows
	PeerToken     string  `json:"peer_token"`
	LinkID        uint32  `json:"link_id"` // of the link group; 0: none
	RX            *Header `json:"rx"`      // of the own DMB, which the peer writes; nil: as Token
	TX            *Header `json:"tx"`      // of the peer's DMB
	Role          string  `json:"role"`    // client, server or "-"
	Inode         uint64  `json:"inode"`   // of the TCP socket; 0: unknown
	Shutdown      string  `json:"shutdown"`

	// Bytes of buffers without their headers, 0 where there is none or none that the device knows.
	Sndbuf  uint32 `json:"sndbuf"`
	Rcvbuf  uint32 `json:"rcvbuf"`
	Peerbuf uint32 `json:"peerbuf"`

	Number    uint32 `json:"number"`     // of the own DMB among those of the device; 0: none
	ProcessID uint32 `json:"process_id"` // in procs/
}

// A Header is what one side has written into the other's DMB.
type Header struct {
	Producer      Cursor `json:"producer"`
	Consumer      Cursor `json:"consumer"`
	ProducerFlags uint8  `json:"producer_flags"` // smc.ProducerFlags
	StateFlags    uint8  `json:"state_flags"`    // smc.StateFlags
}

// A Cursor is a place in a ring, as smc.Cursor.
type Cursor struct {
	Wrap  uint16 `json:"wrap"`
	Count uint32 `json:"count"`
}

// A LinkGroup is a line of linkgroups: one process's end of a link group. UID, PID, PeerPID, PeerID and DMBBytes are the
// device's knowledge, the rest is what the process says.
type LinkGroup struct {
	ID        uint32 `json:"id"`
	Role      string `json:"role"` // client or server
	Conns     int    `json:"conns"`
	UID       uint32 `json:"uid"`
	PID       int    `json:"pid"`
	ProcessID uint32 `json:"process_id"` // in procs/
	PeerPID   int    `json:"peer_pid"`   // 0: unknown
	PeerID    uint32 `json:"peer_id"`    // in procs/; 0: unknown
	Version   uint8  `json:"version"`    // of SMC
	Release   uint8  `json:"release"`    // the peer's
	PeerOS    uint8  `json:"peer_os"`    // 1 z/OS, 2 Linux, 3 AIX
	PeerHost  string `json:"peer_host"`
	EID       string `json:"eid"`
	VLAN      uint8  `json:"vlan"`
	SndBytes  uint64 `json:"sndbuf_bytes"` // of send buffers apart from DMBs
	DMBBytes  uint64 `json:"dmb_bytes"`    // of the own DMBs that the peer process has attached
}

// Conns returns the connections and listeners that the caller may see: those of its own processes, or all if it is
// privileged.
func (d *Device) Conns() ([]Conn, error) { return readRecords(d, "conns", parseConn) }

// LinkGroups returns the ends of link groups that the caller may see: those of its own processes, or all if it is privileged.
// Each of the two ends has an ID of its own.
func (d *Device) LinkGroups() ([]LinkGroup, error) { return readRecords(d, "linkgroups", parseGroup) }

func readRecords[T any](d *Device, name string, parse func(*fields) T) ([]T, error) {
	lines, err := d.readLines(name)
	if err != nil {
		return nil, err
	}
	list := make([]T, len(lines))
	for i, l := range lines {
		f := fields{rest: strings.Split(l, " ")}
		list[i] = parse(&f)
		if f.err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", d.path(name), i+1, f.err)
		}
	}
	return list, nil
}

// fields are those of a line that are still to be read. Later versions may add some at its end.
type fields struct {
	rest []string
	err  error // the first
}

var errFewFields = errors.New("too few fields")

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fields) next() string {
	if len(f.rest) == 0 {
		f.fail(errFewFields)
		return "-"
	}
	s := f.rest[0]
	f.rest = f.rest[1:]
	return s
}

// text is the next field, empty for "-".
func (f *fields) text() string {
	if s := f.next(); s != "-" {
		return s
	}
	return ""
}

// uint is the next field as a number, 0 for "-".
func (f *fields) uint(base, bits int) uint64 {
	s := f.text()
	if s == "" {
		return 0
	}
	v, err := strconv.ParseUint(s, base, bits)
	if err != nil {
		f.fail(err)
	}
	return v
}

func (f *fields) address() netip.AddrPort {
	s := f.text()
	if s == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		f.fail(err)
	}
	return a
}

// pair is the next field as two numbers in hex, with sep between them. The second may be missing if it is optional.
func (f *fields) pair(sep string, optional bool, bits1, bits2 int) (a, b uint64) {
	first, second, both := strings.Cut(f.next(), sep)
	if !both && !optional {
		f.fail(fmt.Errorf("%q has no %q", first, sep))
		return 0, 0
	}
	halves := fields{rest: []string{strings.TrimPrefix(first, "0x")}}
	if both {
		halves.rest = append(halves.rest, strings.TrimPrefix(second, "0x"))
	}
	a = halves.uint(16, bits1)
	if both {
		b = halves.uint(16, bits2)
	}
	if halves.err != nil {
		f.fail(halves.err)
	}
	return a, b
}

func (f *fields) cursor() Cursor {
	wrap, count := f.pair(":", false, 16, 32)
	return Cursor{Wrap: uint16(wrap), Count: uint32(count)}
}

// header is the next three fields, nil if they are unknown.
func (f *fields) header() *Header {
	if len(f.rest) >= 3 && f.rest[0] == "-" && f.rest[1] == "-" && f.rest[2] == "-" {
		f.rest = f.rest[3:]
		return nil
	}
	h := &Header{Producer: f.cursor(), Consumer: f.cursor()}
	pf, sf := f.pair(":", false, 8, 8)
	h.ProducerFlags, h.StateFlags = uint8(pf), uint8(sf)
	return h
}

func parseConn(f *fields) Conn {
	var c Conn
	c.State = f.next()
	c.UID = uint32(f.uint(10, 32))
	c.PID = int(f.uint(10, 31))
	c.NetNS = f.uint(10, 64)
	c.Local = f.address()
	c.Peer = f.address()
	c.Mode = Mode(f.next())
	reason, diagnosis := f.pair("/", true, 32, 32)
	c.Reason, c.PeerDiagnosis = uint32(reason), uint32(diagnosis)
	c.Token = f.text()
	c.PeerToken = f.text()
	c.LinkID = uint32(f.uint(16, 32))
	c.RX = f.header()
	c.TX = f.header()
	c.Role = f.next()
	c.Inode = f.uint(10, 64)
	c.Shutdown = f.next()
	c.Sndbuf = uint32(f.uint(10, 32))
	c.Rcvbuf = uint32(f.uint(10, 32))
	c.Peerbuf = uint32(f.uint(10, 32))
	c.Number = uint32(f.uint(10, 32))
	c.ProcessID = uint32(f.uint(10, 32))
	return c
}

func parseGroup(f *fields) LinkGroup {
	var g LinkGroup
	g.ID = uint32(f.uint(16, 32))
	g.Role = f.next()
	g.Conns = int(f.uint(10, 31))
	g.UID = uint32(f.uint(10, 32))
	g.PID = int(f.uint(10, 31))
	g.ProcessID = uint32(f.uint(10, 32))
	g.PeerPID = int(f.uint(10, 31))
	g.PeerID = uint32(f.uint(10, 32))
	g.Version = uint8(f.uint(10, 8))
	g.Release = uint8(f.uint(10, 8))
	g.PeerOS = uint8(f.uint(10, 8))
	g.PeerHost = f.text()
	g.EID = f.text()
	g.VLAN = uint8(f.uint(10, 8))
	g.SndBytes = f.uint(10, 64)
	g.DMBBytes = f.uint(10, 64)
	return g
}
