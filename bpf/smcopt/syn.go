// SPDX-License-Identifier: Apache-2.0

package smcopt

import "encoding/binary"

const (
	ipv4, ipv6   = 4, 6 // versions
	tcpProtocol  = 6
	ipv4Len      = 20 // without options, as the others
	ipv6Len      = 40
	tcpLen       = 20
	endOfOptions = 0
	noOption     = 1
)

// plainSYN reports whether headers of IP and TCP, as the kernel has saved them, are whole and without an SMC option, of
// whatever length.
func plainSYN(b []byte) bool {
	b = tcpHeader(b)
	if len(b) < tcpLen {
		return false
	}
	end := int(b[12]>>4) * 4
	if end < tcpLen || end > len(b) {
		return false
	}
	for b = b[tcpLen:end]; len(b) > 0 && b[0] != endOfOptions; {
		if b[0] == noOption {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return false
		}
		if b[0] == Kind && b[1] >= KernelLen && binary.BigEndian.Uint32(b[2:]) == Magic {
			return false
		}
		b = b[b[1]:]
	}
	return true
}

// tcpHeader returns what follows the IP header, nil if that is not TCP.
func tcpHeader(b []byte) []byte {
	switch {
	case len(b) >= ipv4Len && b[0]>>4 == ipv4 && b[9] == tcpProtocol:
		if n := int(b[0]&15) * 4; n >= ipv4Len && n <= len(b) {
			return b[n:]
		}
	case len(b) >= ipv6Len && b[0]>>4 == ipv6 && b[6] == tcpProtocol:
		return b[ipv6Len:]
	}
	return nil
}
