// SPDX-License-Identifier: Apache-2.0

package smc

import "encoding/binary"

// Decline (struct smc_clc_msg_decline, smc_clc_msg_decline_v2):
//
//	off  size  field
//	  0     8  header            typev1 R or D; bit 3 of byte 7: out of sync
//	  8     8  id_for_peer       SMC-R system id, zero for SMC-D
//	 16     4  peer_diagnosis
//	 20     1  os_type           bits 7-4; 0 in version 1
//	 21     3  reserved
//	 24    16  peer_diagnosis_v2 version 2 only: four further codes
//	 24/40  4  trailer           not checked on receipt
const (
	declineLenV1 = 28
	declineLenV2 = 44

	offDeclineID          = 8
	offDeclineDiagnosis   = 16
	offDeclineOS          = 20
	offDeclineDiagnosisV2 = 24
)

func declineLen(version uint8) int {
	if version == V1 {
		return declineLenV1
	}
	return declineLenV2
}

// Decline ends a handshake; both ends go on with plain TCP. It is taken
// wherever another message is expected and is never answered by another.
type Decline struct {
	Version     uint8 // V1 or V2: the sender's
	OutOfSync   bool  // the sender does not know the link group: it must end
	IDForPeer   [8]byte
	Diagnosis   DeclineCode
	OSType      uint8          // 0 in version 1
	DiagnosisV2 [4]DeclineCode // version 2; zero from Linux
}

// NewDecline returns the Decline that Linux sends for code.
func NewDecline(version uint8, code DeclineCode) Decline {
	d := Decline{Version: version, Diagnosis: code, OutOfSync: code == DeclSyncErr}
	if version != V1 {
		d.OSType = OSLinux
	}
	return d
}

// ParseDecline decodes one whole Decline. Its errors are ProtocolErrors.
func ParseDecline(b []byte) (Decline, error) {
	h, err := parseFrame(b, MsgDecline)
	if err != nil {
		return Decline{}, err
	}
	if h.TypeV1 != PathR && h.TypeV1 != PathD {
		return Decline{}, malformed(h.Type, "path type %d", h.TypeV1)
	}
	d := Decline{
		Version:   h.Version,
		OutOfSync: h.flagged(),
		IDForPeer: [8]byte(b[offDeclineID:]),
		Diagnosis: DeclineCode(binary.BigEndian.Uint32(b[offDeclineDiagnosis:])),
		OSType:    b[offDeclineOS] >> 4,
	}
	if h.Version != V1 {
		for i := range d.DiagnosisV2 {
			d.DiagnosisV2[i] = DeclineCode(binary.BigEndian.Uint32(b[offDeclineDiagnosisV2+4*i:]))
		}
	}
	return d, nil
}

// Len returns the length of the encoded message.
func (d *Decline) Len() int { return declineLen(d.Version) }

// AppendTo appends the encoded message to b.
func (d *Decline) AppendTo(b []byte) []byte {
	h := Header{Type: MsgDecline, Length: d.Len(), Version: d.Version}
	if d.OutOfSync {
		h.TypeV2 = flagFirstContact >> 2
	}
	all, m := appendFrame(b, h, eyecatcherR)
	copy(m[offDeclineID:], d.IDForPeer[:])
	binary.BigEndian.PutUint32(m[offDeclineDiagnosis:], uint32(d.Diagnosis))
	m[offDeclineOS] = d.OSType << 4
	if d.Version != V1 {
		for i, c := range d.DiagnosisV2 {
			binary.BigEndian.PutUint32(m[offDeclineDiagnosisV2+4*i:], uint32(c))
		}
	}
	return all
}
