// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ismfs/ismfs/smc"
)

// The slot of a link group:
//
//	off  size  field
//	  0     4  sequence
//	  4     1  kind             3
//	  5     1  role             1 client, 2 server
//	  6     1  release
//	  7     1  peer's OS
//	  8     4  id
//	 12     4  procs id of the peer process
//	 16     8  token of the own doorbell page, 0 none
//	 24     8  token of the peer's doorbell page
//	 32    32  EID
//	 64    32  peer's host name, blank padded
//	 96    32  reserved
const (
	offRelease  = 6
	offOS       = 7
	offGroupID  = 8
	offPeerID   = 12
	offPage     = 16
	offPeerPage = 24
	offEID      = 32
	offHost     = 64
	hostLen     = 32
)

// A Group describes a link group.
type Group struct {
	Role     Role
	Release  uint8
	OS       uint8  // the peer's, as in the first-contact extension
	ID       uint32 // the link group's
	Peer     uint32 // procs id of the peer process
	Page     uint64 // token of the own doorbell page; 0: none
	PeerPage uint64
	EID      smc.EID // zero: none
	Host     string  // the peer's, at most 32 bytes
}

// Errors of a link group's texts.
var (
	errEID  = errors.New("slot: malformed EID")
	errHost = errors.New("slot: malformed host name")
)

// Put writes g into a slot, all but the sequence word. A host name is cut after 32 bytes, and what could not stand in a line
// of text, blanks included, becomes '?'.
func (g *Group) Put(b *[SlotLen]byte) {
	clear(b[OffSequence+4:])
	b[offKind] = byte(LinkGroup)
	b[offRole] = byte(g.Role)
	b[offRelease] = g.Release
	b[offOS] = g.OS
	native.PutUint32(b[offGroupID:], g.ID)
	native.PutUint32(b[offPeerID:], g.Peer)
	native.PutUint64(b[offPage:], g.Page)
	native.PutUint64(b[offPeerPage:], g.PeerPage)
	copy(b[offEID:], g.EID[:])
	host := b[offHost : offHost+hostLen]
	for i := copy(host, g.Host); i < hostLen; i++ {
		host[i] = ' '
	}
	for i := range min(len(g.Host), hostLen) {
		if !printable(host[i]) {
			host[i] = '?'
		}
	}
}

func printable(c byte) bool { return '!' <= c && c <= '~' }

func parseGroup(b []byte) (*Group, error) {
	role, err := parseRole(b)
	if err != nil {
		return nil, err
	}
	g := &Group{
		Role:     role,
		Release:  b[offRelease],
		OS:       b[offOS],
		ID:       native.Uint32(b[offGroupID:]),
		Peer:     native.Uint32(b[offPeerID:]),
		Page:     native.Uint64(b[offPage:]),
		PeerPage: native.Uint64(b[offPeerPage:]),
	}
	copy(g.EID[:], b[offEID:])
	if g.EID != (smc.EID{}) {
		if e, err := smc.ParseEID(string(g.EID[:])); err != nil || e != g.EID {
			return nil, fmt.Errorf("%w %q", errEID, g.EID[:])
		}
	}
	host := bytes.TrimRight(b[offHost:offHost+hostLen], " \x00")
	for _, c := range host {
		if !printable(c) {
			return nil, fmt.Errorf("%w %q", errHost, host)
		}
	}
	g.Host = string(host)
	return g, nil
}
