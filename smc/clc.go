// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// Every CLC message starts with this header and ends with a trailer that
// repeats the eyecatcher (net/smc/smc_clc.h, struct smc_clc_msg_hdr and
// smc_clc_msg_trail):
//
//	off  size  field
//	  0     4  eyecatcher  "SMCR" or "SMCD" in EBCDIC; a receiver takes either
//	  4     1  type        1 Proposal, 2 Accept, 3 Confirm, 4 Decline
//	  5     2  length      of the whole message, header and trailer included
//	  7     1  bits 7-4    version
//	           bits 3-2    typev2; outside a Proposal bit 3 alone is a flag:
//	                       first contact (Accept, Confirm), out of sync (Decline)
//	           bits 1-0    typev1; in Accept and Confirm the path chosen
const (
	HeaderLen  = 8
	TrailerLen = 4

	// MaxMessageLen is the longest message that is read: the kernel's receive
	// area, struct smc_clc_msg_proposal_area.
	MaxMessageLen = 652

	offType   = 4
	offLength = 5
	offTypes  = 7

	flagFirstContact = 0x08 // SMC_FIRST_CONTACT_MASK, within typev2
)

// Versions in the header. Linux sends V2 in every Proposal; a receiver treats
// higher ones as V2.
const (
	V1 = 1 // SMC_V1
	V2 = 2 // SMC_V2
)

// Release is the newest release of version 2 spoken here: 2.1
// (SMC_RELEASE).
const Release = 1

// FeatureEmulatedISM in a feature mask says that the sender knows devices with
// 128-bit GIDs (SMC_SPF_EMULATED_ISM_DEV).
const FeatureEmulatedISM = 0x0001

// Operating systems in the first-contact extension and in Decline.
const (
	OSZOS     = 1 // SMC_CLC_OS_ZOS
	OSLinux   = 2 // SMC_CLC_OS_LINUX
	OSAIX     = 3 // SMC_CLC_OS_AIX
	OSUnknown = 15
)

var (
	eyecatcherR = [4]byte{0xE2, 0xD4, 0xC3, 0xD9} // SMC_EYECATCHER
	eyecatcherD = [4]byte{0xE2, 0xD4, 0xC3, 0xC4} // SMCD_EYECATCHER
)

// MsgType is the type of a CLC message.
type MsgType uint8

// The four CLC messages.
const (
	MsgProposal MsgType = 1 // SMC_CLC_PROPOSAL
	MsgAccept   MsgType = 2 // SMC_CLC_ACCEPT
	MsgConfirm  MsgType = 3 // SMC_CLC_CONFIRM
	MsgDecline  MsgType = 4 // SMC_CLC_DECLINE
)

// String returns the message's name.
func (t MsgType) String() string {
	switch t {
	case MsgProposal:
		return "Proposal"
	case MsgAccept:
		return "Accept"
	case MsgConfirm:
		return "Confirm"
	case MsgDecline:
		return "Decline"
	}
	return fmt.Sprintf("CLC type %d", uint8(t))
}

// PathType says which transports a Proposal offers for one version, or which
// one an Accept chose. Two bits on the wire.
type PathType uint8

// Path types.
const (
	PathR    PathType = 0 // SMC_TYPE_R, RDMA
	PathD    PathType = 1 // SMC_TYPE_D, shared buffers
	PathNone PathType = 2 // SMC_TYPE_N
	PathBoth PathType = 3 // SMC_TYPE_B
)

// HasD reports whether SMC-D is among the paths.
func (t PathType) HasD() bool { return t == PathD || t == PathBoth }

// HasR reports whether SMC-R is among the paths.
func (t PathType) HasR() bool { return t == PathR || t == PathBoth }

// ProtocolError says what is wrong with a message. errors.Is takes it for
// EPROTO, which is what the kernel returns.
type ProtocolError struct {
	Msg    string // the message or word, "CLC Accept"
	Detail string
}

func (e *ProtocolError) Error() string { return e.Msg + ": " + e.Detail }

// Unwrap returns EPROTO.
func (e *ProtocolError) Unwrap() error { return syscall.EPROTO }

func malformed(t MsgType, format string, args ...any) error {
	return &ProtocolError{"CLC " + t.String(), fmt.Sprintf(format, args...)}
}

// Header is the decoded common header.
type Header struct {
	Type    MsgType
	Length  int // bytes, of the whole message
	Version uint8
	TypeV1  PathType
	TypeV2  PathType
}

// flagged reports the bit that is first contact in Accept and Confirm and out
// of sync in Decline.
func (h Header) flagged() bool { return h.TypeV2&(flagFirstContact>>2) != 0 }

// ParseHeader decodes the first HeaderLen bytes of a message and checks what
// they alone can show: eyecatcher, type, a version of at least 1 and a length
// that the type allows, at most MaxMessageLen. A reader of a stream reads
// HeaderLen bytes, then exactly Length - HeaderLen more: what follows a
// Decline belongs to the application.
//
// The kernel reads and drops what a message has beyond its receive area
// (smc_clc_wait_msg). No valid Proposal is that long and Linux sends no Accept
// above 130 bytes, so a longer message is an error here.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, &ProtocolError{"CLC header", fmt.Sprintf("%d bytes, need %d", len(b), HeaderLen)}
	}
	if !isEyecatcher(b) {
		return Header{}, &ProtocolError{"CLC header", fmt.Sprintf("eyecatcher %x", b[:4])}
	}
	h := Header{
		Type:    MsgType(b[offType]),
		Length:  int(binary.BigEndian.Uint16(b[offLength:])),
		Version: b[offTypes] >> 4,
		TypeV2:  PathType(b[offTypes] >> 2 & 3),
		TypeV1:  PathType(b[offTypes] & 3),
	}
	if h.Version < V1 {
		return Header{}, malformed(h.Type, "version 0")
	}
	var least, most int
	switch h.Type {
	case MsgProposal:
		least, most = minProposalLen, MaxMessageLen
	case MsgAccept, MsgConfirm:
		least, most = acceptLenV1, MaxMessageLen
	case MsgDecline:
		least = declineLen(h.Version)
		most = least
	default:
		return Header{}, &ProtocolError{"CLC header", fmt.Sprintf("type %d", b[offType])}
	}
	if h.Length < least || h.Length > most {
		return Header{}, malformed(h.Type, "length %d, allowed are %d to %d", h.Length, least, most)
	}
	return h, nil
}

// parseFrame decodes the header of b, which must be one message of type want
// and nothing else.
func parseFrame(b []byte, want ...MsgType) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return h, err
	}
	for _, t := range want {
		if h.Type != t {
			continue
		}
		if len(b) != h.Length {
			return h, malformed(h.Type, "%d bytes, the header says %d", len(b), h.Length)
		}
		return h, nil
	}
	return h, malformed(h.Type, "expected a %v", want[0])
}

// checkTrailer checks the last four bytes of a message.
func checkTrailer(h Header, b []byte) error {
	if t := b[len(b)-TrailerLen:]; !isEyecatcher(t) {
		return malformed(h.Type, "trailer %x", t)
	}
	return nil
}

func isEyecatcher(b []byte) bool {
	e := [4]byte(b)
	return e == eyecatcherR || e == eyecatcherD
}

// appendFrame appends a zeroed message of h.Length bytes with header and
// trailer set to b, and returns the whole slice and the message within it.
func appendFrame(b []byte, h Header, eyecatcher [4]byte) (all, msg []byte) {
	n := len(b)
	all = append(b, make([]byte, h.Length)...)
	msg = all[n:]
	copy(msg, eyecatcher[:])
	msg[offType] = uint8(h.Type)
	binary.BigEndian.PutUint16(msg[offLength:], uint16(h.Length))
	msg[offTypes] = h.Version<<4 | uint8(h.TypeV2&3)<<2 | uint8(h.TypeV1&3)
	copy(msg[h.Length-TrailerLen:], eyecatcher[:])
	return all, msg
}
