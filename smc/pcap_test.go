// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// The captures in testdata were taken on the loopback of a Linux 6.12 kernel
// with CONFIG_SMC_LO=y and one user EID, SMCV2-ANCHOR-UEID.01:
//
//	smcd1.pcap  first contact: Proposal, Accept, Confirm
//	smcd2.pcap  two more connections of the same link group
//	noeid.pcap  no user EID: Proposal, Decline, then payload on TCP

// readPcap returns the TCP payloads of a capture of Ethernet and IPv4, in
// order, without empty segments.
func readPcap(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	const fileHeader, recordHeader, ethernet = 24, 16, 14
	if binary.LittleEndian.Uint32(b) != 0xA1B2C3D4 {
		t.Fatalf("%s: not a little-endian pcap file", name)
	}
	var payloads [][]byte
	for b = b[fileHeader:]; len(b) > 0; {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		frame := b[recordHeader : recordHeader+n]
		b = b[recordHeader+n:]
		ip := frame[ethernet:]
		ip = ip[:binary.BigEndian.Uint16(ip[2:])]
		tcp := ip[int(ip[0]&0x0F)*4:]
		if payload := tcp[int(tcp[12]>>4)*4:]; len(payload) > 0 {
			payloads = append(payloads, payload)
		}
	}
	return payloads
}

// clcMessages returns the CLC messages of all captures.
func clcMessages(t testing.TB) [][]byte {
	t.Helper()
	var ms [][]byte
	for _, name := range []string{"smcd1.pcap", "smcd2.pcap", "noeid.pcap"} {
		for _, p := range readPcap(t, name) {
			if bytes.HasPrefix(p, eyecatcherR[:]) || bytes.HasPrefix(p, eyecatcherD[:]) {
				ms = append(ms, p)
			}
		}
	}
	return ms
}
