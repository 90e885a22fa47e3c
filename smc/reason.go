// SPDX-License-Identifier: Apache-2.0

package smc

import "fmt"

// DeclineCode says why two ends do not speak SMC: in a Decline, as the reason
// of a fallback to TCP, in the tools and in the counters (SMC_CLC_DECL_* in
// net/smc/smc_clc.h). It is an error; see the package's doc for what such an
// error allows. Codes of SMC-R are here because a peer may send them.
type DeclineCode uint32

// All codes. The kernel's names have SMC_CLC_DECL_ in front.
const (
	DeclMem        DeclineCode = 0x01010000 // MEM: out of memory, or attaching the server's DMB failed
	DeclTimeoutCL  DeclineCode = 0x02010000 // TIMEOUT_CL: no Confirm Link (SMC-R)
	DeclTimeoutAL  DeclineCode = 0x02020000 // TIMEOUT_AL: no Add Link (SMC-R)
	DeclCnfErr     DeclineCode = 0x03000000 // CNFERR: configuration error
	DeclPeerNoSMC  DeclineCode = 0x03010000 // PEERNOSMC: no SMC option in the peer's SYN or SYN-ACK, or no usable version
	DeclIPsec      DeclineCode = 0x03020000 // IPSEC: the socket has an IPsec policy
	DeclNoSMCDev   DeclineCode = 0x03030000 // NOSMCDEV: no SMC device at all
	DeclNoSMCDDev  DeclineCode = 0x03030001 // NOSMCDDEV: no SMC-D device; also what no common EID ends in
	DeclNoSMCRDev  DeclineCode = 0x03030002 // NOSMCRDEV: no SMC-R device
	DeclNoISM2Supp DeclineCode = 0x03030003 // NOISM2SUPP: no ISMv2 device was ever there
	DeclNoV2Ext    DeclineCode = 0x03030004 // NOV2EXT: version 2 without its extension
	DeclNoV2DExt   DeclineCode = 0x03030005 // NOV2DEXT: SMC-Dv2 without its extension
	DeclNoSEID     DeclineCode = 0x03030006 // NOSEID: the peer sent no system EID (the kernel never sends it)
	DeclNoSMCD2Dev DeclineCode = 0x03030007 // NOSMCD2DEV: no device proposed is reachable here
	DeclNoUEID     DeclineCode = 0x03030008 // NOUEID: the peer has neither user EIDs nor a system EID
	DeclReleaseErr DeclineCode = 0x03030009 // RELEASEERR: the release is not the one negotiated
	DeclMaxConnErr DeclineCode = 0x0303000a // MAXCONNERR: max_conns (SMC-R)
	DeclMaxLinkErr DeclineCode = 0x0303000b // MAXLINKERR: max_links (SMC-R)
	DeclModeUnsupp DeclineCode = 0x03040000 // MODEUNSUPP: a type or version was accepted that was not proposed
	DeclRMBEEC     DeclineCode = 0x03050000 // RMBE_EC: eyecatcher in the RMBE (SMC-R)
	DeclOptUnsupp  DeclineCode = 0x03060000 // OPTUNSUPP: TCP Fast Open
	DeclDiffPrefix DeclineCode = 0x03070000 // DIFFPREFIX: another IP subnet (version 1)
	DeclGetVLANErr DeclineCode = 0x03080000 // GETVLANERR: the VLAN of the interface is unknown
	DeclISMVLANErr DeclineCode = 0x03090000 // ISMVLANERR: the device refused the VLAN (version 1)
	DeclNoActLink  DeclineCode = 0x030a0000 // NOACTLINK: no active link (SMC-R)
	DeclNoSrvLink  DeclineCode = 0x030b0000 // NOSRVLINK: the server's link is unknown (SMC-R)
	DeclVersMismat DeclineCode = 0x030c0000 // VERSMISMAT: version mismatch
	DeclMaxDMB     DeclineCode = 0x030d0000 // MAX_DMB: the device has no room for another DMB
	DeclNoRoute    DeclineCode = 0x030e0000 // NOROUTE: no route to the peer (SMC-Rv2)
	DeclNoIndirect DeclineCode = 0x030f0000 // NOINDIRECT: direct and indirect do not match (SMC-Rv2)
	DeclSyncErr    DeclineCode = 0x04000000 // SYNCERR: the link group is out of sync
	DeclPeerDecl   DeclineCode = 0x05000000 // PEERDECL: the peer declined; its diagnosis has the cause
	DeclIntErr     DeclineCode = 0x09990000 // INTERR: internal error
	DeclErrRtok    DeclineCode = 0x09990001 // ERR_RTOK: rtoken handling (SMC-R)
	DeclErrRdyLnk  DeclineCode = 0x09990002 // ERR_RDYLNK: readying the link (SMC-R)
	DeclErrRegBuf  DeclineCode = 0x09990003 // ERR_REGBUF: registering buffers (SMC-R)
)

// DeclineCodes are all codes, in the order of the constants. The order is part of the format of a procs block
// (docs/dmb-format.md, section 3): new codes go to the end.
var DeclineCodes = []DeclineCode{
	DeclMem, DeclTimeoutCL, DeclTimeoutAL, DeclCnfErr, DeclPeerNoSMC, DeclIPsec,
	DeclNoSMCDev, DeclNoSMCDDev, DeclNoSMCRDev, DeclNoISM2Supp, DeclNoV2Ext, DeclNoV2DExt,
	DeclNoSEID, DeclNoSMCD2Dev, DeclNoUEID, DeclReleaseErr, DeclMaxConnErr, DeclMaxLinkErr,
	DeclModeUnsupp, DeclRMBEEC, DeclOptUnsupp, DeclDiffPrefix, DeclGetVLANErr, DeclISMVLANErr,
	DeclNoActLink, DeclNoSrvLink, DeclVersMismat, DeclMaxDMB, DeclNoRoute, DeclNoIndirect,
	DeclSyncErr, DeclPeerDecl, DeclIntErr, DeclErrRtok, DeclErrRdyLnk, DeclErrRegBuf,
}

// declineNames holds, per code, the kernel's name and the one that smcd and
// smcr stats print, empty where the tool has none.
var declineNames = map[DeclineCode]struct{ kernel, stats string }{
	DeclMem:        {"MEM", "MEMORY"},
	DeclTimeoutCL:  {"TIMEOUT_CL", "TIMEOUT_CL"},
	DeclTimeoutAL:  {"TIMEOUT_AL", "TIMEOUT_AL"},
	DeclCnfErr:     {"CNFERR", "CNF_ERR"},
	DeclPeerNoSMC:  {"PEERNOSMC", "PEER_NO_SMC"},
	DeclIPsec:      {"IPSEC", "IPSEC"},
	DeclNoSMCDev:   {"NOSMCDEV", "NOSMCDEV"},
	DeclNoSMCDDev:  {"NOSMCDDEV", "NOSMCDDEV"},
	DeclNoSMCRDev:  {"NOSMCRDEV", "NOSMCRDEV"},
	DeclNoISM2Supp: {"NOISM2SUPP", "NOISM2SUPP"},
	DeclNoV2Ext:    {"NOV2EXT", "NOV2EXT"},
	DeclNoV2DExt:   {"NOV2DEXT", "NOV2DEXT"},
	DeclNoSEID:     {"NOSEID", "NOSEID"},
	DeclNoSMCD2Dev: {"NOSMCD2DEV", "NOSMCD2DEV"},
	DeclNoUEID:     {"NOUEID", ""},
	DeclReleaseErr: {"RELEASEERR", ""},
	DeclMaxConnErr: {"MAXCONNERR", ""},
	DeclMaxLinkErr: {"MAXLINKERR", ""},
	DeclModeUnsupp: {"MODEUNSUPP", "MODEUNSUPP"},
	DeclRMBEEC:     {"RMBE_EC", "RMBE_EC"},
	DeclOptUnsupp:  {"OPTUNSUPP", "OPTUNSUPP"},
	DeclDiffPrefix: {"DIFFPREFIX", "DIFFPREFIX"},
	DeclGetVLANErr: {"GETVLANERR", "GETVLANERR"},
	DeclISMVLANErr: {"ISMVLANERR", "ISMVLANERR"},
	DeclNoActLink:  {"NOACTLINK", "NOACTLINK"},
	DeclNoSrvLink:  {"NOSRVLINK", "NOSRVLINK"},
	DeclVersMismat: {"VERSMISMAT", "VERSMISMAT"},
	DeclMaxDMB:     {"MAX_DMB", "MAX_DMB"},
	DeclNoRoute:    {"NOROUTE", ""},
	DeclNoIndirect: {"NOINDIRECT", ""},
	DeclSyncErr:    {"SYNCERR", "SYNCERR"},
	DeclPeerDecl:   {"PEERDECL", "PEERDECL"},
	DeclIntErr:     {"INTERR", ""},
	DeclErrRtok:    {"ERR_RTOK", ""},
	DeclErrRdyLnk:  {"ERR_RDYLNK", ""},
	DeclErrRegBuf:  {"ERR_REGBUF", ""},
}

// String returns the kernel's name without SMC_CLC_DECL_, or the number in the
// form 0x03030008 if there is none.
func (c DeclineCode) String() string {
	if n, ok := declineNames[c]; ok {
		return n.kernel
	}
	return fmt.Sprintf("0x%08x", uint32(c))
}

// Error makes a code usable as an error.
func (c DeclineCode) Error() string {
	return fmt.Sprintf("SMC declined: %s (0x%08x)", c.String(), uint32(c))
}

// StatsName returns what smcd stats prints for the code, and false if that is
// "[unknown]".
func (c DeclineCode) StatsName() (string, bool) {
	if n := declineNames[c].stats; n != "" {
		return n, true
	}
	return "[unknown]", false
}
