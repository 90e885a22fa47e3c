// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"net/netip"

	"github.com/ismfs/ismfs/smc"
)

// The slot of a connection or listener:
//
//	off  size  field
//	  0     4  sequence
//	  4     1  kind             1 connection, 2 listener
//	  5     1  role             0 none, 1 client, 2 server
//	  6     1  mode             0 not settled, 1 TCP, 2 SMC-D
//	  7     1  state            smc.State
//	  8     1  address family   4 or 6
//	  9     1  shutdown         bit 0 own reading, bit 1 own writing
//	 10     2  local port
//	 12     2  peer port
//	 14     2  reserved
//	 16    16  local address    IPv4: the first 4 bytes
//	 32    16  peer address
//	 48     8  token of the own DMB
//	 56     8  token of the peer's DMB
//	 64     4  link group id
//	 68     4  fallback reason
//	 72     4  peer diagnosis
//	 76     4  descriptor       plus 1; 0: the slot says all by itself
//	 80     8  inode of the TCP socket
//	 88    40  reserved
const (
	offMode       = 6
	offState      = 7
	offFamily     = 8
	offShutdown   = 9
	offLocalPort  = 10
	offPeerPort   = 12
	offLocal      = 16
	offPeer       = 32
	offToken      = 48
	offPeerToken  = 56
	offLinkID     = 64
	offReason     = 68
	offDiagnosis  = 72
	offDescriptor = 76
	offInode      = 80

	shutRead  = 1 << 0
	shutWrite = 1 << 1
)

// A Conn describes a connection or a listener.
type Conn struct {
	Listener      bool
	Role          Role
	Mode          Mode
	State         smc.State      // smc.Listen if and only if it is a listener
	ShutRead      bool           // the own end's shutdowns
	ShutWrite     bool           //
	Local, Peer   netip.AddrPort // both of one family; a listener has no Peer
	Token         uint64         // of the own DMB; 0: none
	PeerToken     uint64         //
	LinkID        uint32         // of the link group; 0: none
	Reason        smc.DeclineCode
	PeerDiagnosis smc.DeclineCode
	Inode         uint64 // of the TCP socket
	Descriptor    uint32 // plus 1, of a connection on TCP whose Local and Inode the device finds; 0: nothing is to be found
}

// Put writes c into a slot, all but the sequence word. Addresses lose their zones and become IPv6 ones unless both are IPv4;
// invalid ones count as 0.0.0.0:0.
func (c *Conn) Put(b *[SlotLen]byte) {
	clear(b[OffSequence+4:])
	b[offKind] = byte(Connection)
	if c.Listener {
		b[offKind] = byte(Listener)
	}
	b[offRole] = byte(c.Role)
	b[offMode] = byte(c.Mode)
	b[offState] = byte(c.State)
	if c.Listener {
		b[offState] = byte(smc.Listen)
	}
	if c.ShutRead {
		b[offShutdown] |= shutRead
	}
	if c.ShutWrite {
		b[offShutdown] |= shutWrite
	}
	c.putAddresses(b)
	native.PutUint64(b[offToken:], c.Token)
	native.PutUint64(b[offPeerToken:], c.PeerToken)
	native.PutUint32(b[offLinkID:], c.LinkID)
	native.PutUint32(b[offReason:], uint32(c.Reason))
	native.PutUint32(b[offDiagnosis:], uint32(c.PeerDiagnosis))
	native.PutUint32(b[offDescriptor:], c.Descriptor)
	native.PutUint64(b[offInode:], c.Inode)
}

func (c *Conn) putAddresses(b *[SlotLen]byte) {
	local, peer := c.Local.Addr(), c.Peer.Addr()
	native.PutUint16(b[offLocalPort:], c.Local.Port())
	native.PutUint16(b[offPeerPort:], c.Peer.Port())
	if local.Is6() || peer.Is6() {
		b[offFamily] = 6
		put16(b[offLocal:], local)
		put16(b[offPeer:], peer)
		return
	}
	b[offFamily] = 4
	put4(b[offLocal:], local)
	put4(b[offPeer:], peer)
}

func put4(b []byte, a netip.Addr) {
	if a.IsValid() {
		v := a.As4()
		copy(b, v[:])
	}
}

func put16(b []byte, a netip.Addr) {
	if a.IsValid() {
		v := a.As16()
		copy(b, v[:])
	}
}

func parseConn(b []byte, listener bool) (*Conn, error) {
	role, err := parseRole(b)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		Listener:      listener,
		Role:          role,
		Mode:          Mode(b[offMode]),
		State:         smc.State(b[offState]),
		ShutRead:      b[offShutdown]&shutRead != 0,
		ShutWrite:     b[offShutdown]&shutWrite != 0,
		Token:         native.Uint64(b[offToken:]),
		PeerToken:     native.Uint64(b[offPeerToken:]),
		LinkID:        native.Uint32(b[offLinkID:]),
		Reason:        smc.DeclineCode(native.Uint32(b[offReason:])),
		PeerDiagnosis: smc.DeclineCode(native.Uint32(b[offDiagnosis:])),
		Inode:         native.Uint64(b[offInode:]),
		Descriptor:    native.Uint32(b[offDescriptor:]),
	}
	switch {
	case c.Mode > SMCD:
		return nil, badValue("mode", b[offMode])
	case !known(c.State), listener != (c.State == smc.Listen):
		return nil, badValue("state", b[offState])
	case c.Descriptor != 0 && (listener || c.Mode != TCP):
		return nil, badValue("mode of what is to be found", b[offMode])
	}
	local, peer, err := addresses(b)
	if err != nil {
		return nil, err
	}
	c.Local = netip.AddrPortFrom(local, native.Uint16(b[offLocalPort:]))
	if !listener {
		c.Peer = netip.AddrPortFrom(peer, native.Uint16(b[offPeerPort:]))
	}
	return c, nil
}

func addresses(b []byte) (local, peer netip.Addr, err error) {
	switch b[offFamily] {
	case 4:
		return netip.AddrFrom4([4]byte(b[offLocal:])), netip.AddrFrom4([4]byte(b[offPeer:])), nil
	case 6:
		return netip.AddrFrom16([16]byte(b[offLocal:])), netip.AddrFrom16([16]byte(b[offPeer:])), nil
	}
	return local, peer, badValue("address family", b[offFamily])
}

func known(s smc.State) bool {
	switch s {
	case smc.Active, smc.Init, smc.Closed, smc.Listen:
		return true
	}
	return smc.PeerCloseWait1 <= s && s <= smc.ProcessAbort
}
