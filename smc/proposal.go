// SPDX-License-Identifier: Apache-2.0

package smc

import "encoding/binary"

// Proposal, the client's message. Areas follow one another without gaps:
//
//	base (40) | SMC-D part (40) | prefixes (8 + 17k)  if typev1 is not none
//	| v2 extension (40 + 32n)     if typev2 is not none
//	| SMC-Dv2 extension (48 + 10m) if typev2 has D | trailer (4)
//
// Base (struct smc_clc_msg_proposal) and SMC-D part (smc_clc_msg_smcd):
//
//	off  size  field
//	  0     8  header
//	  8     8  id_for_peer         SMC-R system id
//	 16    16  gid                 RoCE GID
//	 32     6  mac                 RoCE MAC
//	 38     2  iparea_offset       from 40 to the prefixes: 40, or 0 without them
//	 40    10  ism                 GID and CHID of a native device, for version 1
//	 50     2  v2_ext_offset       from 52 to the v2 extension, 0 without it
//	 52     3  vendor_oui
//	 55     5  vendor_exp_options
//	 60    20  reserved
//
// Prefixes (smc_clc_msg_proposal_prefix, smc_clc_ipv6_prefix):
//
//	+0     4  outgoing_subnet     IPv4
//	+4     1  prefix_len
//	+5     2  reserved
//	+7     1  ipv6_prefixes_cnt   k
//	+8   17k  prefix (16), prefix_len (1)
const (
	offPropID         = 8
	offPropGID        = 16
	offPropMAC        = 32
	offPropIPArea     = 38
	offPropSMCD       = 40
	offPropISM        = 40
	offPropV2Ext      = 50
	offPropVendorOUI  = 52
	offPropVendorOpts = 55
	propBaseLen       = 40
	smcdPartLen       = 40

	offPrefixLen   = 4
	offPrefixCount = 7
	prefixLen      = 8
	ipv6PrefixLen  = 17
	maxV6Prefixes  = 8 // SMC_CLC_MAX_V6_PREFIX

	minProposalLen = propBaseLen + prefixLen + TrailerLen // version 1, SMC-R only
)

// Proposal offers transports and devices to a server.
type Proposal struct {
	Version uint8    // Linux sends V2 even if it offers version 1 as well
	TypeV1  PathType // paths offered in version 1
	TypeV2  PathType // paths offered in version 2; not used if Version is V1

	IDForPeer [8]byte  // SMC-R only
	RoCEGID   [16]byte // SMC-R only
	MAC       [6]byte  // SMC-R only

	// IPAreaOffset is the length of the part between base and prefixes. 40
	// is a whole SMC-D part; a version 1 SMC-R peer may send less, and then
	// the fields from ISM to VendorExpOptions are not there.
	IPAreaOffset uint16

	ISM              GIDCHID // native device, zero if none
	VendorOUI        [3]byte
	VendorExpOptions [5]byte

	Prefix Prefix // only if TypeV1 is not PathNone

	// V2 is nil if TypeV2 is PathNone. A peer can leave the extension out
	// although its TypeV2 asks for it: nil as well, and a Decline NOV2EXT.
	V2 *V2Extension
}

// Prefix is what version 1 compares to see whether both ends are on one
// subnet.
type Prefix struct {
	Subnet [4]byte
	Len    uint8
	IPv6   []IPv6Prefix // at most 8
}

// IPv6Prefix is one of a client's IPv6 prefixes.
type IPv6Prefix struct {
	Addr [16]byte
	Len  uint8
}

func (p *Prefix) size() int { return prefixLen + ipv6PrefixLen*len(p.IPv6) }

// ParseProposal decodes one whole Proposal by the rules of
// smc_clc_msg_prop_valid: the length must be the exact sum of the areas, and
// no offset may lead out of the message. Its errors are ProtocolErrors.
//
// Two rules differ. A version 2 message without a v2 extension where typev2
// asks for one is taken if its length fits, so that it can be declined with
// NOV2EXT; the kernel's later versions drop the connection. And with prefixes,
// a version 2 message must have them behind the SMC-D part, where Linux puts
// them.
func ParseProposal(b []byte) (Proposal, error) {
	h, err := parseFrame(b, MsgProposal)
	if err != nil {
		return Proposal{}, err
	}
	if err := checkTrailer(h, b); err != nil {
		return Proposal{}, err
	}
	body := b[:len(b)-TrailerLen]
	p := Proposal{
		Version:      h.Version,
		TypeV1:       h.TypeV1,
		TypeV2:       h.TypeV2,
		IDForPeer:    [8]byte(b[offPropID:]),
		RoCEGID:      [16]byte(b[offPropGID:]),
		MAC:          [6]byte(b[offPropMAC:]),
		IPAreaOffset: binary.BigEndian.Uint16(b[offPropIPArea:]),
	}
	if p.IPAreaOffset > smcdPartLen {
		return Proposal{}, malformed(MsgProposal, "iparea_offset %d, at most %d", p.IPAreaOffset, smcdPartLen)
	}
	if p.Version == V1 {
		err = p.parseV1(body)
	} else {
		err = p.parseV2(body)
	}
	if err != nil {
		return Proposal{}, err
	}
	return p, nil
}

func (p *Proposal) parseV1(body []byte) error {
	if p.TypeV1 == PathNone {
		return malformed(MsgProposal, "version 1 without a path")
	}
	if p.IPAreaOffset == smcdPartLen {
		if err := p.parseSMCD(body); err != nil {
			return err
		}
	}
	end, err := p.Prefix.parse(body, propBaseLen+int(p.IPAreaOffset))
	if err != nil {
		return err
	}
	return checkEnd(body, end)
}

func (p *Proposal) parseV2(body []byte) error {
	if err := p.parseSMCD(body); err != nil {
		return err
	}
	end := propBaseLen + smcdPartLen
	if p.TypeV1 != PathNone {
		if p.IPAreaOffset != smcdPartLen {
			return malformed(MsgProposal, "iparea_offset %d, need %d", p.IPAreaOffset, smcdPartLen)
		}
		var err error
		if end, err = p.Prefix.parse(body, end); err != nil {
			return err
		}
	}
	if p.TypeV2 == PathNone {
		return checkEnd(body, end)
	}
	at := int(binary.BigEndian.Uint16(body[offPropV2Ext:]))
	if at == 0 || at > maxV2ExtOffset {
		return checkEnd(body, end)
	}
	ext, err := parseV2Extension(body, offPropV2Ext+2+at, p.TypeV2)
	if err != nil {
		return err
	}
	p.V2 = ext
	return checkEnd(body, end+v2AreasLen(body, offPropV2Ext+2+at, p.TypeV2))
}

// parseSMCD decodes the SMC-D part.
func (p *Proposal) parseSMCD(body []byte) error {
	if len(body) < offPropSMCD+smcdPartLen {
		return malformed(MsgProposal, "length %d is too short for the SMC-D part", len(body)+TrailerLen)
	}
	p.ISM = parseGIDCHID(body[offPropISM:])
	p.VendorOUI = [3]byte(body[offPropVendorOUI:])
	p.VendorExpOptions = [5]byte(body[offPropVendorOpts:])
	return nil
}

// parse decodes the prefixes at offset at and returns where they end.
func (p *Prefix) parse(body []byte, at int) (end int, err error) {
	if len(body) < at+prefixLen {
		return 0, malformed(MsgProposal, "length %d is too short for the prefixes", len(body)+TrailerLen)
	}
	b := body[at:]
	n := int(b[offPrefixCount])
	if n > maxV6Prefixes {
		return 0, malformed(MsgProposal, "%d IPv6 prefixes, at most %d", n, maxV6Prefixes)
	}
	end = at + prefixLen + n*ipv6PrefixLen
	if len(body) < end {
		return 0, malformed(MsgProposal, "length %d is too short for %d IPv6 prefixes", len(body)+TrailerLen, n)
	}
	p.Subnet = [4]byte(b)
	p.Len = b[offPrefixLen]
	for b = b[prefixLen:]; n > 0; n-- {
		p.IPv6 = append(p.IPv6, IPv6Prefix{[16]byte(b), b[16]})
		b = b[ipv6PrefixLen:]
	}
	return end, nil
}

// checkEnd checks that the areas, which end at end, fill the message.
func checkEnd(body []byte, end int) error {
	if len(body) != end {
		return malformed(MsgProposal, "length %d, its areas need %d", len(body)+TrailerLen, end+TrailerLen)
	}
	return nil
}

// Len returns the length of the encoded message.
func (p *Proposal) Len() int {
	if p.Version == V1 {
		return propBaseLen + int(p.IPAreaOffset) + p.Prefix.size() + TrailerLen
	}
	n := propBaseLen + smcdPartLen + TrailerLen
	if p.TypeV1 != PathNone {
		n += p.Prefix.size()
	}
	if p.V2 != nil {
		n += p.V2.size(p.TypeV2)
	}
	return n
}

// AppendTo appends the encoded message to b. It fails if the fields contradict
// each other or the protocol's limits, and then returns b as it was.
func (p *Proposal) AppendTo(b []byte) ([]byte, error) {
	if err := p.check(); err != nil {
		return b, err
	}
	h := Header{MsgProposal, p.Len(), p.Version, p.TypeV1, p.TypeV2}
	all, m := appendFrame(b, h, eyecatcherR)
	copy(m[offPropID:], p.IDForPeer[:])
	copy(m[offPropGID:], p.RoCEGID[:])
	copy(m[offPropMAC:], p.MAC[:])
	binary.BigEndian.PutUint16(m[offPropIPArea:], p.IPAreaOffset)
	at := propBaseLen + int(p.IPAreaOffset)
	if p.Version != V1 || p.IPAreaOffset == smcdPartLen {
		at = propBaseLen + smcdPartLen
		p.ISM.put(m[offPropISM:])
		copy(m[offPropVendorOUI:], p.VendorOUI[:])
		copy(m[offPropVendorOpts:], p.VendorExpOptions[:])
	}
	if p.TypeV1 != PathNone {
		p.Prefix.put(m[at:])
		at += p.Prefix.size()
	}
	if p.V2 != nil {
		binary.BigEndian.PutUint16(m[offPropV2Ext:], uint16(at-offPropV2Ext-2))
		p.V2.put(m[at:])
	}
	return all, nil
}

func (p *Prefix) put(b []byte) {
	copy(b, p.Subnet[:])
	b[offPrefixLen] = p.Len
	b[offPrefixCount] = uint8(len(p.IPv6))
	for i, x := range p.IPv6 {
		at := prefixLen + i*ipv6PrefixLen
		copy(b[at:], x.Addr[:])
		b[at+16] = x.Len
	}
}

func (p *Proposal) check() error {
	switch {
	case p.Version < V1 || p.Version > 15:
		return malformed(MsgProposal, "version %d", p.Version)
	case p.Version == V1 && p.TypeV1 == PathNone:
		return malformed(MsgProposal, "version 1 without a path")
	case p.IPAreaOffset > smcdPartLen,
		p.Version != V1 && p.TypeV1 != PathNone && p.IPAreaOffset != smcdPartLen:
		return malformed(MsgProposal, "iparea_offset %d", p.IPAreaOffset)
	case len(p.Prefix.IPv6) > maxV6Prefixes:
		return malformed(MsgProposal, "%d IPv6 prefixes, at most %d", len(p.Prefix.IPv6), maxV6Prefixes)
	case p.V2 == nil:
		return nil
	case p.Version == V1 || p.TypeV2 == PathNone:
		return malformed(MsgProposal, "a v2 extension that the types do not announce")
	}
	return p.V2.check(p.TypeV2)
}
