// SPDX-License-Identifier: Apache-2.0

package smcopt

import "encoding/binary"

// Numbers of the headers of a SYN.
const (
	ipv4HeaderMin = 20
	ipv6Header    = 40
	protocolTCP   = 6
	tcpHeaderMin  = 20
	optionEnd     = 0 // TCPOPT_EOL
	optionNop     = 1 // TCPOPT_NOP
)

// announces reports whether a SYN, from its IP header on, has an option with the magic, whoever's it is. ok is false if that
// cannot be told.
func announces(syn []byte) (has, ok bool) {
	tcp := tcpHeader(syn)
	if len(tcp) < tcpHeaderMin {
		return false, false
	}
	end := int(tcp[12]>>4) * 4
	if end < tcpHeaderMin || end > len(tcp) {
		return false, false
	}
	for options := tcp[tcpHeaderMin:end]; len(options) > 0; {
		kind := options[0]
		if kind == optionEnd {
			break
		}
		n := 1
		if kind != optionNop {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				return false, false
			}
			n = int(options[1])
		}
		if kind == Kind && n >= KernelLen && binary.BigEndian.Uint32(options[2:]) == Magic {
			return true, true
		}
		options = options[n:]
	}
	return false, true
}

// tcpHeader returns what follows the IP header, nil if that is not TCP's, or not at once.
func tcpHeader(packet []byte) []byte {
	switch {
	case len(packet) >= ipv4HeaderMin && packet[0]>>4 == 4 && packet[9] == protocolTCP:
		if n := int(packet[0]&15) * 4; n >= ipv4HeaderMin && n <= len(packet) {
			return packet[n:]
		}
	case len(packet) >= ipv6Header && packet[0]>>4 == 6 && packet[6] == protocolTCP:
		return packet[ipv6Header:]
	}
	return nil
}
