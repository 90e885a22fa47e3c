// SPDX-License-Identifier: Apache-2.0

package smc

import "fmt"

// State is the state of an SMC socket, with the kernel's numbers (enum
// smc_state in net/smc/smc.h).
type State uint8

// States. "Done" is the peer's flag PeerDoneWriting, "closed" PeerConnClosed
// or PeerConnAbort.
const (
	Active           State = 1  // SMC_ACTIVE
	Init             State = 2  // SMC_INIT: not connected yet
	Closed           State = 7  // SMC_CLOSED
	Listen           State = 10 // SMC_LISTEN
	PeerCloseWait1   State = 20 // SMC_PEERCLOSEWAIT1: done or closed sent, nothing received
	PeerCloseWait2   State = 21 // SMC_PEERCLOSEWAIT2: done or closed sent, done received
	AppCloseWait1    State = 22 // SMC_APPCLOSEWAIT1: done or closed received, nothing sent
	AppCloseWait2    State = 23 // SMC_APPCLOSEWAIT2: done or closed received, done sent
	AppFinCloseWait  State = 24 // SMC_APPFINCLOSEWAIT: closed received, the application must still close
	PeerFinCloseWait State = 25 // SMC_PEERFINCLOSEWAIT: done received, closed sent
	PeerAbortWait    State = 26 // SMC_PEERABORTWAIT: killed, but a worker still runs; Machine skips it
	ProcessAbort     State = 27 // SMC_PROCESSABORT: abort received, the application must still close
)

// String returns the kernel's name without SMC_. smcss calls AppFinCloseWait
// APPFINCLOSEWAIT1.
func (s State) String() string {
	switch s {
	case Active:
		return "ACTIVE"
	case Init:
		return "INIT"
	case Closed:
		return "CLOSED"
	case Listen:
		return "LISTEN"
	case PeerCloseWait1:
		return "PEERCLOSEWAIT1"
	case PeerCloseWait2:
		return "PEERCLOSEWAIT2"
	case AppCloseWait1:
		return "APPCLOSEWAIT1"
	case AppCloseWait2:
		return "APPCLOSEWAIT2"
	case AppFinCloseWait:
		return "APPFINCLOSEWAIT"
	case PeerFinCloseWait:
		return "PEERFINCLOSEWAIT"
	case PeerAbortWait:
		return "PEERABORTWAIT"
	case ProcessAbort:
		return "PROCESSABORT"
	}
	return fmt.Sprintf("SMC state %d", uint8(s))
}

// connected reports whether shutdown is possible: else it gives ENOTCONN
// (smc_shutdown).
func (s State) connected() bool {
	switch s {
	case Active, PeerCloseWait1, PeerCloseWait2, AppCloseWait1, AppCloseWait2, AppFinCloseWait:
		return true
	}
	return false
}
