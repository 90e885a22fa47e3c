// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// CHIDLoopback is the channel id of every loopback-ism device
// (SMC_LO_RESERVED_CHID).
const CHIDLoopback = 0xFFFF

// EmulatedCHID reports whether chid is one of those reserved for devices with
// 128-bit GIDs: 0xFF00 to 0xFFFF (__smc_ism_is_emulated).
func EmulatedCHID(chid uint16) bool { return chid&0xFF00 == 0xFF00 }

// GID identifies an ISM device: the 16 bytes of a UUID, in the order of its
// text. On the wire its halves travel apart, each as those 8 bytes (drivers/dibs;
// kernels before 6.18 sent each half byte-reversed on little-endian hosts).
// A device that is not emulated has a zero second half.
type GID [16]byte

// GIDFromHalves joins the two halves of a GID, as they stand in Accept and in
// the Proposal's entries.
func GIDFromHalves(gid, ext uint64) GID {
	var g GID
	binary.BigEndian.PutUint64(g[:8], gid)
	binary.BigEndian.PutUint64(g[8:], ext)
	return g
}

// Halves returns the numbers that the tools print for the GID, and whose
// big-endian bytes are sent: gid and gid_ext.
func (g GID) Halves() (gid, ext uint64) {
	return binary.BigEndian.Uint64(g[:8]), binary.BigEndian.Uint64(g[8:])
}

// String returns the UUID text, in lower case.
func (g GID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// ParseGID parses UUID text in either case: 36 characters, hyphens after 8,
// 13, 18 and 23.
func ParseGID(s string) (GID, error) {
	var g GID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("GID %q: not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", s)
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(g[:], []byte(digits)); err != nil {
		return GID{}, fmt.Errorf("GID %q: %w", s, err)
	}
	return g, nil
}

// GIDCHID is one entry of a Proposal's device list, 10 bytes on the wire
// (struct smc_clc_smcd_gid_chid).
type GIDCHID struct {
	GID  uint64
	CHID uint16
}

const gidchidLen = 10

func parseGIDCHID(b []byte) GIDCHID {
	return GIDCHID{binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:])}
}

func (e GIDCHID) put(b []byte) {
	binary.BigEndian.PutUint64(b, e.GID)
	binary.BigEndian.PutUint16(b[8:], e.CHID)
}

// OfferedDevice is one device that a client can use.
type OfferedDevice struct {
	GID  GID
	CHID uint16
}

// devices joins entries to devices in their order. An emulated entry whose
// second half is missing is passed over (smc_find_ism_v2_device_serv).
func devices(entries []GIDCHID) []OfferedDevice {
	var ds []OfferedDevice
	for i := 0; i < len(entries); i++ {
		e := entries[i]
		var ext uint64
		if EmulatedCHID(e.CHID) {
			if i+1 == len(entries) || entries[i+1].CHID != e.CHID {
				continue
			}
			i++
			ext = entries[i].GID
		}
		ds = append(ds, OfferedDevice{GIDFromHalves(e.GID, ext), e.CHID})
	}
	return ds
}
