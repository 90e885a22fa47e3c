// SPDX-License-Identifier: Apache-2.0

package smc

import "encoding/binary"

// The v2 extension of a Proposal (struct smc_clc_v2_extension):
//
//	off  size  field
//	 +0     1  eid_cnt             n, at most 8
//	 +1     1  ism_gid_cnt         m, at most 8; an emulated device counts twice
//	 +2     1  reserved
//	 +3     1  bits 7-4 release, bit 0 SEID indicator
//	 +4     2  reserved
//	 +6     2  smcd_v2_ext_offset  from +8 to the SMC-Dv2 extension, 0 without it
//	 +8    16  roce                RoCEv2 GID
//	+24     1  max_conns           SMC-R
//	+25     1  max_links           SMC-R
//	+26     2  feature_mask
//	+28    12  reserved
//	+40   32n  user_eids
//
// and its SMC-Dv2 extension (struct smc_clc_smcd_v2_extension):
//
//	 +0    32  system_eid          zero unless the SEID indicator is set
//	+32    16  reserved
//	+48   10m  gidchid
const (
	offV2EIDCount = 0
	offV2GIDCount = 1
	offV2Flags    = 3
	offV2DExt     = 6
	offV2RoCE     = 8
	offV2MaxConns = 24
	offV2MaxLinks = 25
	offV2Features = 26
	offV2EIDs     = 40
	v2ExtLen      = 40

	offV2DGIDs = 48
	v2dExtLen  = 48

	v2FlagSEID = 0x01

	maxCLCUEIDs   = 8 // SMC_CLC_MAX_UEID
	maxGIDEntries = 8 // SMCD_CLC_MAX_V2_GID_ENTRIES

	// The largest offsets there can be: with every area before at its
	// longest (struct smc_clc_msg_proposal_area).
	maxV2ExtOffset  = smcdPartLen - 12 + prefixLen + maxV6Prefixes*ipv6PrefixLen
	maxV2DExtOffset = v2ExtLen - 8 + maxCLCUEIDs*EIDLen
)

// V2Extension is what a client says of version 2.
type V2Extension struct {
	Release     uint8 // the client's newest, 4 bits
	SEID        bool  // the client has a system EID
	RoCEGID     [16]byte
	MaxConns    uint8 // SMC-R
	MaxLinks    uint8 // SMC-R
	FeatureMask uint16
	UEIDs       []EID // at most 8, in the client's order of preference

	// SMCD is nil if the client's TypeV2 has no D, or if it left the
	// extension out all the same: then a Decline NOV2DEXT.
	SMCD *SMCDV2Extension
}

// SMCDV2Extension is what a client says of SMC-D version 2.
type SMCDV2Extension struct {
	SystemEID EID       // zero without V2Extension.SEID
	GIDs      []GIDCHID // at most 8
}

// Devices returns the devices that the entries describe, in the client's
// order. An emulated device takes two entries; a lone half is passed over.
func (e *SMCDV2Extension) Devices() []OfferedDevice { return devices(e.GIDs) }

// v2AreasLen returns the length of the v2 areas that the counts in the
// extension at offset at announce.
func v2AreasLen(body []byte, at int, types PathType) int {
	n := v2ExtLen + EIDLen*int(body[at+offV2EIDCount])
	if types.HasD() {
		n += v2dExtLen + gidchidLen*int(body[at+offV2GIDCount])
	}
	return n
}

// parseV2Extension decodes the extension at offset at, and the SMC-Dv2
// extension that it points to.
func parseV2Extension(body []byte, at int, types PathType) (*V2Extension, error) {
	if len(body) < at+v2ExtLen {
		return nil, malformed(MsgProposal, "v2 extension at %d, length is %d", at, len(body)+TrailerLen)
	}
	b := body[at:]
	eids, gids := int(b[offV2EIDCount]), int(b[offV2GIDCount])
	if eids > maxCLCUEIDs {
		return nil, malformed(MsgProposal, "%d user EIDs, at most %d", eids, maxCLCUEIDs)
	}
	if len(b) < offV2EIDs+eids*EIDLen {
		return nil, malformed(MsgProposal, "%d user EIDs do not fit", eids)
	}
	e := &V2Extension{
		Release:     b[offV2Flags] >> 4,
		SEID:        b[offV2Flags]&v2FlagSEID != 0,
		RoCEGID:     [16]byte(b[offV2RoCE:]),
		MaxConns:    b[offV2MaxConns],
		MaxLinks:    b[offV2MaxLinks],
		FeatureMask: binary.BigEndian.Uint16(b[offV2Features:]),
	}
	for i := range eids {
		e.UEIDs = append(e.UEIDs, EID(b[offV2EIDs+i*EIDLen:]))
	}
	if !types.HasD() {
		return e, nil
	}
	if gids > maxGIDEntries {
		return nil, malformed(MsgProposal, "%d GID entries, at most %d", gids, maxGIDEntries)
	}
	off := int(binary.BigEndian.Uint16(b[offV2DExt:]))
	if off == 0 || off > maxV2DExtOffset {
		return e, nil
	}
	off += offV2DExt + 2
	if len(b) < off+v2dExtLen+gids*gidchidLen {
		return nil, malformed(MsgProposal, "SMC-Dv2 extension at %d with %d entries does not fit", at+off, gids)
	}
	b = b[off:]
	e.SMCD = &SMCDV2Extension{SystemEID: EID(b)}
	for i := range gids {
		e.SMCD.GIDs = append(e.SMCD.GIDs, parseGIDCHID(b[offV2DGIDs+i*gidchidLen:]))
	}
	return e, nil
}

// size returns the length of both extensions. With types that have D there is
// room for the SMC-Dv2 extension even if it is absent: the length rule asks
// for it.
func (e *V2Extension) size(types PathType) int {
	n := v2ExtLen + EIDLen*len(e.UEIDs)
	if types.HasD() {
		n += v2dExtLen
	}
	if e.SMCD != nil {
		n += gidchidLen * len(e.SMCD.GIDs)
	}
	return n
}

func (e *V2Extension) check(types PathType) error {
	switch {
	case len(e.UEIDs) > maxCLCUEIDs:
		return malformed(MsgProposal, "%d user EIDs, at most %d", len(e.UEIDs), maxCLCUEIDs)
	case e.Release > 15:
		return malformed(MsgProposal, "release %d", e.Release)
	case e.SMCD == nil:
		return nil
	case !types.HasD():
		return malformed(MsgProposal, "an SMC-Dv2 extension that typev2 does not announce")
	case len(e.SMCD.GIDs) > maxGIDEntries:
		return malformed(MsgProposal, "%d GID entries, at most %d", len(e.SMCD.GIDs), maxGIDEntries)
	}
	return nil
}

// put encodes both extensions at the start of b.
func (e *V2Extension) put(b []byte) {
	b[offV2EIDCount] = uint8(len(e.UEIDs))
	b[offV2Flags] = e.Release << 4
	if e.SEID {
		b[offV2Flags] |= v2FlagSEID
	}
	copy(b[offV2RoCE:], e.RoCEGID[:])
	b[offV2MaxConns] = e.MaxConns
	b[offV2MaxLinks] = e.MaxLinks
	binary.BigEndian.PutUint16(b[offV2Features:], e.FeatureMask)
	for i, eid := range e.UEIDs {
		copy(b[offV2EIDs+i*EIDLen:], eid[:])
	}
	if e.SMCD == nil {
		return
	}
	b[offV2GIDCount] = uint8(len(e.SMCD.GIDs))
	off := v2ExtLen + EIDLen*len(e.UEIDs)
	binary.BigEndian.PutUint16(b[offV2DExt:], uint16(off-offV2DExt-2))
	b = b[off:]
	copy(b, e.SMCD.SystemEID[:])
	for i, g := range e.SMCD.GIDs {
		g.put(b[offV2DGIDs+i*gidchidLen:])
	}
}
