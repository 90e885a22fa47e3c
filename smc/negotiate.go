// SPDX-License-Identifier: Apache-2.0

package smc

// Local is what this system brings to a handshake: one loopback-ism device and
// the table of user EIDs.
type Local struct {
	GID      GID
	CHID     uint16 // CHIDLoopback
	Active   bool   // the device takes new connections
	UEIDs    []EID
	Release  uint8  // newest spoken: Release
	Features uint16 // feature mask: FeatureEmulatedISM
}

// Agreement is what a Proposal and its answers settle.
type Agreement struct {
	EID EID

	// Release and Features are settled at first contact; a later connection
	// of the link group has those of the group.
	Release  uint8
	Features uint16
}

// NewProposal returns the Proposal of a client that offers its loopback-ism
// device and nothing else: 192 bytes plus 32 for each user EID. A client
// without an active device sends DeclNoSMCDev instead.
func NewProposal(l Local) Proposal {
	gid, ext := l.GID.Halves()
	return Proposal{
		Version: V2,
		TypeV1:  PathNone,
		TypeV2:  PathD,
		V2: &V2Extension{
			Release:     l.Release,
			FeatureMask: l.Features,
			UEIDs:       l.UEIDs,
			SMCD:        &SMCDV2Extension{GIDs: []GIDCHID{{gid, l.CHID}, {ext, l.CHID}}},
		},
	}
}

// AnswerProposal is the server's decision (smc_listen_v2_check,
// smc_find_ism_v2_device_serv, smc_listen_find_device): with whom it can talk,
// under which EID and release; Features is its own mask, which goes into the
// Accept. l is nil if this host never had a device.
//
// The error is a DeclineCode. Version 1, SMC-R and native devices are never
// available here, so a Proposal that has only those is declined; the IP
// prefixes of version 1 are not compared.
func AnswerProposal(p *Proposal, l *Local) (Agreement, error) {
	useD, useR := p.Version != V1 && p.TypeV2.HasD(), p.Version != V1 && p.TypeV2.HasR()
	code := DeclPeerNoSMC
	switch {
	case !useD && !useR:
	case p.V2 == nil:
		useD, useR, code = false, false, DeclNoV2Ext
	default:
		if c := usableD(p.V2, l); useD && c != 0 {
			useD, code = false, c
		}
		if useR && len(p.V2.UEIDs) == 0 {
			useR, code = false, DeclNoUEID
		}
	}
	if !useD && !useR && p.TypeV1 == PathNone {
		return Agreement{}, code
	}
	var reason DeclineCode // the first one found is the one sent
	if useD {
		if !reachable(p.V2.SMCD, l) {
			reason = DeclNoSMCD2Dev
		} else if eid, ok := ChooseEID(p.V2.UEIDs, l.UEIDs); ok {
			return Agreement{eid, min(p.V2.Release, l.Release), l.Features}, nil
		}
	}
	if reason == 0 {
		reason = noDevice(p, l, useR)
	}
	return Agreement{}, reason
}

// usableD returns why SMC-D version 2 is out of the question, or 0.
func usableD(e *V2Extension, l *Local) DeclineCode {
	switch {
	case l == nil:
		return DeclNoISM2Supp
	case e.SMCD == nil:
		return DeclNoV2DExt
	case len(e.UEIDs) == 0 && !e.SEID:
		return DeclNoUEID
	}
	return 0
}

// reachable reports whether the device is among those that the client offers.
func reachable(e *SMCDV2Extension, l *Local) bool {
	if !l.Active {
		return false
	}
	for _, d := range e.Devices() {
		if d.CHID == l.CHID && d.GID == l.GID {
			return true
		}
	}
	return false
}

// noDevice is the reason if the devices that were offered gave none: there is
// neither an SMC-D device for version 1 nor any SMC-R device here. rdmaV2 says
// that SMC-R version 2 was looked for.
func noDevice(p *Proposal, l *Local, rdmaV2 bool) DeclineCode {
	if p.TypeV1.HasD() || !p.TypeV1.HasR() && !p.TypeV2.HasR() {
		return DeclNoSMCDDev
	}
	if rdmaV2 && l != nil {
		if _, ok := ChooseEID(p.V2.UEIDs, l.UEIDs); ok {
			return DeclNoSMCRDev
		}
	}
	return DeclNoSMCDev
}

// CheckAccept is the client's check of the server's Accept against the Proposal
// that it sent (smc_connect_check_aclc, smc_connect_ism). Features is what both
// have, which goes into the Confirm. If the Accept is not a first contact,
// Release and Features are zero: they are the link group's.
//
// A DeclineCode is to be declined; any other error is a *ProtocolError. The
// kernel takes any release and does not look at GID, EID and the DMB's index:
// here, what was not offered cannot be accepted, and the index must be 0.
//
// Whether the link group of an Accept without first contact is known is the
// caller's to see: if not, decline with DeclSyncErr.
func CheckAccept(p *Proposal, a *AcceptConfirm) (Agreement, error) {
	if a.Version != V2 || a.TypeV1 != PathD || !p.TypeV2.HasD() || p.V2 == nil || p.V2.SMCD == nil {
		return Agreement{}, DeclModeUnsupp
	}
	offered := false
	for _, d := range p.V2.SMCD.Devices() {
		offered = offered || d == OfferedDevice{a.GID, a.CHID}
	}
	if !offered {
		return Agreement{}, malformed(a.Type, "device %v on CHID %04x was not offered", a.GID, a.CHID)
	}
	if _, ok := ChooseEID(p.V2.UEIDs, []EID{a.EID}); !ok {
		return Agreement{}, malformed(a.Type, "EID %q was not offered", a.EID)
	}
	if a.DMBEIndex != 0 {
		return Agreement{}, malformed(a.Type, "dmbe_idx %d", a.DMBEIndex)
	}
	agreed := Agreement{EID: a.EID}
	if a.FCE == nil {
		return agreed, nil
	}
	if a.FCE.Release > p.V2.Release {
		return Agreement{}, DeclReleaseErr
	}
	agreed.Release = a.FCE.Release
	agreed.Features = a.FCE.FeatureMask & p.V2.FeatureMask
	return agreed, nil
}

// CheckConfirm is the server's check of the client's Confirm against the Accept
// that it sent (smc_clc_v2x_features_confirm_check). It returns the feature
// mask that both have: the client's at first contact, else 0.
//
// A DeclineCode is to be declined; any other error is a *ProtocolError. The
// kernel compares the release only: here, device, EID and first contact must be
// those of the Accept as well, and the DMB's index must be 0.
func CheckConfirm(a, c *AcceptConfirm) (features uint16, err error) {
	switch {
	case c.Version != a.Version || c.TypeV1 != PathD || c.FirstContact != a.FirstContact:
		return 0, malformed(c.Type, "version %d, path type %d, first contact %t do not match the Accept", c.Version, c.TypeV1, c.FirstContact)
	case c.GID != a.GID || c.CHID != a.CHID || c.EID != a.EID:
		return 0, malformed(c.Type, "device %v on CHID %04x, EID %q do not match the Accept", c.GID, c.CHID, c.EID)
	case c.DMBEIndex != 0:
		return 0, malformed(c.Type, "dmbe_idx %d", c.DMBEIndex)
	case c.FCE == nil:
		return 0, nil
	case c.FCE.Release != a.FCE.Release:
		return 0, DeclReleaseErr
	}
	return c.FCE.FeatureMask & a.FCE.FeatureMask, nil
}
