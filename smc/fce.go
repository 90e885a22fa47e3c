// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"encoding/binary"
	"strings"
)

// The first-contact extension (struct smc_clc_first_contact_ext and, from
// release 1 on, smc_clc_first_contact_ext_v2x):
//
//	off  size  field
//	 +0     1  bit 7: v2_direct (SMC-R)
//	 +1     1  bits 7-4 os_type, bits 3-0 release
//	 +2     2  reserved
//	 +4    32  hostname            ASCII, padded with blanks
//	+36     1  max_conns           SMC-R; from here on only with release 1 and up
//	+37     1  max_links           SMC-R
//	+38     2  feature_mask
//	+40     4  vendor_exp_options
//	+44     8  reserved4
const (
	offFCEDirect   = 0
	offFCERelease  = 1
	offFCEHost     = 4
	offFCEMaxConns = 36
	offFCEMaxLinks = 37
	offFCEFeatures = 38
	offFCEVendor   = 40
	offFCEReserved = 44
	fceLen         = 36
	fceLenV2x      = 52

	fceFlagDirect = 0x80

	// HostnameLen is the length of a host name on the wire
	// (SMC_MAX_HOSTNAME_LEN).
	HostnameLen = 32
)

// FirstContactExt says who the sender is, when a link group begins.
type FirstContactExt struct {
	V2Direct bool // SMC-R
	OSType   uint8
	Release  uint8 // the one negotiated
	Hostname [HostnameLen]byte

	// Only with Release 1 and up.
	MaxConns         uint8  // SMC-R
	MaxLinks         uint8  // SMC-R
	FeatureMask      uint16 // the server's own; from the client, what both have
	VendorExpOptions uint32
	Reserved4        [8]byte // zero from Linux, which ignores it
}

// PadHostname returns name as the extension carries it: cut to 32 bytes and
// padded with blanks.
func PadHostname(name string) [HostnameLen]byte {
	var h [HostnameLen]byte
	for i := copy(h[:], name); i < HostnameLen; i++ {
		h[i] = ' '
	}
	return h
}

// Host returns the sender's host name without padding, or "" if it is not
// ASCII: then the kernel ignores it as well.
func (f *FirstContactExt) Host() string {
	for _, c := range f.Hostname {
		if c >= 0x80 {
			return ""
		}
	}
	return strings.TrimRight(string(f.Hostname[:]), " \x00")
}

func parseFirstContactExt(t MsgType, b []byte) (FirstContactExt, error) {
	if len(b) < fceLen {
		return FirstContactExt{}, malformed(t, "%d bytes are too short for the first-contact extension", len(b))
	}
	f := FirstContactExt{
		V2Direct: b[offFCEDirect]&fceFlagDirect != 0,
		OSType:   b[offFCERelease] >> 4,
		Release:  b[offFCERelease] & 0x0F,
		Hostname: [HostnameLen]byte(b[offFCEHost:]),
	}
	if f.Release == 0 {
		return f, nil
	}
	if len(b) < fceLenV2x {
		return FirstContactExt{}, malformed(t, "%d bytes are too short for the first-contact extension of release %d", len(b), f.Release)
	}
	f.MaxConns = b[offFCEMaxConns]
	f.MaxLinks = b[offFCEMaxLinks]
	f.FeatureMask = binary.BigEndian.Uint16(b[offFCEFeatures:])
	f.VendorExpOptions = binary.BigEndian.Uint32(b[offFCEVendor:])
	f.Reserved4 = [8]byte(b[offFCEReserved:])
	return f, nil
}

// Len returns the length of the encoded extension: 36 bytes with release 0,
// else 52.
func (f *FirstContactExt) Len() int {
	if f.Release == 0 {
		return fceLen
	}
	return fceLenV2x
}

func (f *FirstContactExt) check(t MsgType) error {
	if f.Release > 15 || f.OSType > 15 {
		return malformed(t, "release %d, os_type %d", f.Release, f.OSType)
	}
	return nil
}

// put encodes the extension at the start of b.
func (f *FirstContactExt) put(b []byte) {
	if f.V2Direct {
		b[offFCEDirect] = fceFlagDirect
	}
	b[offFCERelease] = f.OSType<<4 | f.Release
	copy(b[offFCEHost:], f.Hostname[:])
	if f.Release == 0 {
		return
	}
	b[offFCEMaxConns] = f.MaxConns
	b[offFCEMaxLinks] = f.MaxLinks
	binary.BigEndian.PutUint16(b[offFCEFeatures:], f.FeatureMask)
	binary.BigEndian.PutUint32(b[offFCEVendor:], f.VendorExpOptions)
	copy(b[offFCEReserved:], f.Reserved4[:])
}
