// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

// A Mode is what carries a connection's bytes.
type Mode int

const (
	Handshaking Mode = iota // not settled yet
	TCP                     // the TCP connection: see Info.Reason
	SMCD                    // shared buffers
)

func (m Mode) String() string {
	switch m {
	case TCP:
		return "TCP"
	case SMCD:
		return "SMCD"
	}
	return "handshaking"
}

// Info describes a connection at one moment.
type Info struct {
	Mode   Mode
	Client bool // this side dialled

	// On TCP: why (the reference's fallback_rsn), the peer's own reason if that is PEERDECL, and what went wrong here, if
	// anything did.
	Reason        smc.DeclineCode
	PeerDiagnosis smc.DeclineCode
	Cause         error

	// In SMC-D mode.
	State       smc.State
	GID         smc.GID
	EID         smc.EID
	LinkGroup   uint32    // this side's id of the link group
	PeerProcess uint32    // the peer's procs id; the device has confirmed it. 0: it had gone
	Token       dmb.Token // of this side's DMB
	PeerToken   dmb.Token // 0: it had gone before it could be attached
	ReadBuffer  int       // bytes of this side's ring
	WriteBuffer int       // bytes of the peer's ring
	Copied      bool      // dmb_copy 1: what is written is copied by a system call
	Wait        Wait      // how it waits now: what was asked for, as far as the mount allows

	// Of this connection, in SMC-D mode.
	BytesRead    uint64
	BytesWritten uint64
	WakeUps      uint64 // system calls made to wake the peer; who looks for news by itself needs none
}

// String is the mode, and on TCP the reason.
func (i Info) String() string {
	if i.Mode != TCP {
		return i.Mode.String()
	}
	s := "TCP: " + i.Reason.String()
	if i.PeerDiagnosis != 0 {
		s += ", the peer says " + i.PeerDiagnosis.String()
	}
	if i.Cause != nil {
		s += ": " + i.Cause.Error()
	}
	return s
}
