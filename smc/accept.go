// SPDX-License-Identifier: Apache-2.0

package smc

import "encoding/binary"

// Accept and Confirm, one layout (struct smc_clc_msg_accept_confirm), as
// SMC-D fills it:
//
//	off  size  field
//	  0     8  header     typev1: the path, SMC-D; bit 3 of byte 7: first contact
//	  8     8  gid        the sender's, first half
//	 16     8  token      of the sender's DMB: the peer will write there
//	 24     1  dmbe_idx   0
//	 25     1  dmbe_size  bits 7-4: n, the DMB has 2^(n+14) bytes
//	 26     2  reserved4
//	 28     4  linkid     the sender's link group, in the sender's byte order
//	 32    12  reserved   version 1 only; the trailer at 44 ends it
//	 32     2  chid       version 2: of the chosen device
//	 34    32  eid        version 2: the negotiated EID
//	 66     8  gid_ext    version 2: second half of gid if the CHID is emulated
//	 74   var  first-contact extension, version 2 with the flag set
//	  …     4  trailer
const (
	offAccGID      = 8
	offAccToken    = 16
	offAccDMBEIdx  = 24
	offAccDMBESize = 25
	offAccReserved = 26
	offAccLinkID   = 28
	offAccCHID     = 32
	offAccEID      = 34
	offAccGIDExt   = 66
	offAccFCE      = 74

	acceptLenV1  = 48  // SMCD_CLC_ACCEPT_CONFIRM_LEN
	acceptLenV2  = 78  // SMCD_CLC_ACCEPT_CONFIRM_LEN_V2, without extension
	acceptLenRV1 = 68  // SMCR_CLC_ACCEPT_CONFIRM_LEN
	acceptLenRV2 = 108 // SMCR_CLC_ACCEPT_CONFIRM_LEN_V2
)

// AcceptConfirm is the server's Accept or the client's Confirm.
type AcceptConfirm struct {
	Type         MsgType // MsgAccept or MsgConfirm
	Version      uint8
	TypeV1       PathType // PathD; with PathR nothing below but FirstContact is decoded
	FirstContact bool

	GID       GID // of the sender; version 1 and native devices have no second half
	Token     uint64
	DMBEIndex uint8   // 0 from Linux
	DMBESize  uint8   // n of UncompressBufSize, 4 bits
	Reserved4 [2]byte // zero from Linux, which ignores it
	LinkID    uint32  // as the sender's memory has it: right on hosts of its byte order

	// Version 2 only.
	CHID uint16
	EID  EID
	FCE  *FirstContactExt // there if and only if FirstContact
}

// ParseAcceptConfirm decodes one whole Accept or Confirm. Its errors are
// ProtocolErrors.
//
// Version 1 has exactly 48 bytes. Version 2 has at least 78; what lies between
// the parts known here and the trailer is ignored, as the kernel does. An
// SMC-R message is valid too, so that a client can decline it, but its body is
// not decoded.
func ParseAcceptConfirm(b []byte) (AcceptConfirm, error) {
	h, err := parseFrame(b, MsgAccept, MsgConfirm)
	if err != nil {
		return AcceptConfirm{}, err
	}
	if err := checkAcceptLen(h); err != nil {
		return AcceptConfirm{}, err
	}
	if err := checkTrailer(h, b); err != nil {
		return AcceptConfirm{}, err
	}
	a := AcceptConfirm{Type: h.Type, Version: h.Version, TypeV1: h.TypeV1, FirstContact: h.flagged()}
	if a.TypeV1 != PathD {
		return a, nil
	}
	var ext uint64
	if a.Version != V1 {
		ext = binary.BigEndian.Uint64(b[offAccGIDExt:])
		a.CHID = binary.BigEndian.Uint16(b[offAccCHID:])
		a.EID = EID(b[offAccEID:])
	}
	a.GID = GIDFromHalves(binary.BigEndian.Uint64(b[offAccGID:]), ext)
	a.Token = binary.BigEndian.Uint64(b[offAccToken:])
	a.DMBEIndex = b[offAccDMBEIdx]
	a.DMBESize = b[offAccDMBESize] >> 4
	a.Reserved4 = [2]byte(b[offAccReserved:])
	a.LinkID = binary.NativeEndian.Uint32(b[offAccLinkID:])
	if a.Version != V1 && a.FirstContact {
		fce, err := parseFirstContactExt(h.Type, b[offAccFCE:len(b)-TrailerLen])
		if err != nil {
			return AcceptConfirm{}, err
		}
		a.FCE = &fce
	}
	return a, nil
}

// checkAcceptLen is smc_clc_msg_acc_conf_valid.
func checkAcceptLen(h Header) error {
	ok := false
	switch {
	case h.TypeV1 == PathD && h.Version == V1:
		ok = h.Length == acceptLenV1
	case h.TypeV1 == PathD:
		ok = h.Length >= acceptLenV2
	case h.TypeV1 == PathR && h.Version == V1:
		ok = h.Length == acceptLenRV1
	case h.TypeV1 == PathR:
		ok = h.Length >= acceptLenRV2
	default:
		return malformed(h.Type, "path type %d", h.TypeV1)
	}
	if !ok {
		return malformed(h.Type, "length %d in version %d with path type %d", h.Length, h.Version, h.TypeV1)
	}
	return nil
}

// Len returns the length of the encoded message.
func (a *AcceptConfirm) Len() int {
	if a.Version == V1 {
		return acceptLenV1
	}
	if a.FCE == nil {
		return acceptLenV2
	}
	return acceptLenV2 + a.FCE.Len()
}

// AppendTo appends the encoded message to b. It fails if the fields contradict
// each other, and then returns b as it was.
func (a *AcceptConfirm) AppendTo(b []byte) ([]byte, error) {
	if err := a.check(); err != nil {
		return b, err
	}
	h := Header{Type: a.Type, Length: a.Len(), Version: a.Version, TypeV1: a.TypeV1}
	if a.FirstContact {
		h.TypeV2 = flagFirstContact >> 2
	}
	all, m := appendFrame(b, h, eyecatcherD)
	gid, ext := a.GID.Halves()
	binary.BigEndian.PutUint64(m[offAccGID:], gid)
	binary.BigEndian.PutUint64(m[offAccToken:], a.Token)
	m[offAccDMBEIdx] = a.DMBEIndex
	m[offAccDMBESize] = a.DMBESize << 4
	copy(m[offAccReserved:], a.Reserved4[:])
	binary.NativeEndian.PutUint32(m[offAccLinkID:], a.LinkID)
	if a.Version == V1 {
		return all, nil
	}
	binary.BigEndian.PutUint16(m[offAccCHID:], a.CHID)
	copy(m[offAccEID:], a.EID[:])
	binary.BigEndian.PutUint64(m[offAccGIDExt:], ext)
	if a.FCE != nil {
		a.FCE.put(m[offAccFCE:])
	}
	return all, nil
}

func (a *AcceptConfirm) check() error {
	switch {
	case a.Type != MsgAccept && a.Type != MsgConfirm:
		return malformed(a.Type, "is neither Accept nor Confirm")
	case a.Version < V1 || a.Version > 15:
		return malformed(a.Type, "version %d", a.Version)
	case a.TypeV1 != PathD:
		return malformed(a.Type, "path type %d, only SMC-D is encoded", a.TypeV1)
	case a.DMBESize > 15:
		return malformed(a.Type, "dmbe_size %d", a.DMBESize)
	case a.Version == V1 && a.FCE != nil:
		return malformed(a.Type, "a first-contact extension in version 1")
	case a.Version != V1 && a.FirstContact != (a.FCE != nil):
		return malformed(a.Type, "first contact and its extension go together")
	case a.FCE != nil:
		return a.FCE.check(a.Type)
	}
	return nil
}
