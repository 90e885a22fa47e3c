// SPDX-License-Identifier: Apache-2.0

package smcopt

import "testing"

// syn is a SYN's headers with these TCP options.
func syn(version int, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, endOfOptions)
	}
	ip := make([]byte, ipv4Len)
	ip[0], ip[9] = 0x45, tcpProtocol
	if version == ipv6 {
		ip = make([]byte, ipv6Len)
		ip[0], ip[6] = 0x60, tcpProtocol
	}
	tcp := make([]byte, tcpLen)
	tcp[12] = byte(tcpLen+len(options)) / 4 << 4
	return append(append(ip, tcp...), options...)
}

func TestPlainSYN(t *testing.T) {
	usual := []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7}
	ours := []byte{Kind, Len, 0xe2, 0xd4, 0xc3, 0xd9, FromClient, 1, 2, 3, 4, 5, 6, 7}
	for _, test := range []struct {
		name    string
		options []byte
		plain   bool
	}{
		{"none", nil, true},
		{"the usual", usual, true},
		{"another experiment", append(usual, Kind, 6, 1, 2, 3, 4), true},
		{"a short one of the kind", append(usual, Kind, 2, 1, 1), true},
		{"behind the end", append([]byte{endOfOptions, 1, 1, 1}, ours...), true},
		{"the kernel's", append(usual, 1, 1, Kind, KernelLen, 0xe2, 0xd4, 0xc3, 0xd9), false},
		{"ours", append(usual, ours...), false},
		{"ours first", append(ours, usual...), false},
		{"a length of 0", []byte{Kind, 0, 0xe2, 0xd4}, false},
		{"a length beyond", []byte{Kind, 40, 0xe2, 0xd4}, false},
	} {
		for _, version := range []int{ipv4, ipv6} {
			b := syn(version, test.options...)
			if plainSYN(b) != test.plain {
				t.Errorf("IPv%d, %s: %v", version, test.name, !test.plain)
			}
			for n := range b {
				if plainSYN(b[:n]) {
					t.Errorf("IPv%d, %s: cut after %d bytes it is plain", version, test.name, n)
				}
			}
		}
	}
	b := syn(ipv4, usual...)
	b[9] = 17
	if plainSYN(b) {
		t.Error("UDP is plain")
	}
}

func FuzzPlainSYN(f *testing.F) {
	f.Add(syn(ipv4, 2, 4, 5, 0xb4))
	f.Add(syn(ipv6, Kind, Len, 0xe2, 0xd4, 0xc3, 0xd9))
	f.Fuzz(func(t *testing.T, b []byte) {
		if plainSYN(b) && len(tcpHeader(b)) < tcpLen {
			t.Errorf("% x has no TCP header, and is plain", b)
		}
	})
}
