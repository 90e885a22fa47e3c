// SPDX-License-Identifier: Apache-2.0

package smcopt

import (
	"slices"
	"testing"
)

// aSYN is a SYN of IP version v with these TCP options, whose length is a multiple of 4.
func aSYN(v int, options ...byte) []byte {
	ip := make([]byte, ipv4HeaderMin)
	ip[0], ip[9] = 0x45, protocolTCP
	if v == 6 {
		ip = make([]byte, ipv6Header)
		ip[0], ip[6] = 0x60, protocolTCP
	}
	tcp := make([]byte, tcpHeaderMin)
	tcp[12] = byte(tcpHeaderMin+len(options)) / 4 << 4
	tcp[13] = 2 // SYN
	return slices.Concat(ip, tcp, options)
}

var (
	usual  = []byte{2, 4, 0xff, 0xd7, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7}
	ours   = []byte{1, 1, Kind, Len, 0xE2, 0xD4, 0xC3, 0xD9, FromClient, 1, 2, 3, 4, 5, 6, 7}
	kernel = []byte{1, 1, Kind, KernelLen, 0xE2, 0xD4, 0xC3, 0xD9}
)

func TestAnnounces(t *testing.T) {
	wide := slices.Concat(aSYN(4)[:ipv4HeaderMin], make([]byte, 4), aSYN(4, ours...)[ipv4HeaderMin:]) // with an IP option
	wide[0] = 0x46
	udp := aSYN(4, ours...)
	udp[9] = 17
	behind := aSYN(6, ours...) // another header comes first
	behind[6] = 0
	for _, c := range []struct {
		name    string
		syn     []byte
		has, ok bool
	}{
		{"plain", aSYN(4, usual...), false, true},
		{"plain, IPv6", aSYN(6, usual...), false, true},
		{"without options", aSYN(4), false, true},
		{"ours", aSYN(4, slices.Concat(usual, ours)...), true, true},
		{"ours, IPv6", aSYN(6, slices.Concat(usual, ours)...), true, true},
		{"ours, behind an IP option", wide, true, true},
		{"a kernel's", aSYN(4, slices.Concat(usual, kernel)...), true, true},
		{"behind the end of the options", aSYN(4, slices.Concat([]byte{0, 0, 0, 0}, ours)...), false, true},
		{"another experiment", aSYN(4, 1, 1, Kind, KernelLen, 0xF9, 0x89, 0, 0), false, true},
		{"nothing", nil, false, false},
		{"UDP", udp, false, false},
		{"an extension header", behind, false, false},
		{"an option of length 0", aSYN(4, 8, 0, 1, 1), false, false},
		{"an option beyond the end", aSYN(4, 1, 1, 8, 10), false, false},
	} {
		if has, ok := announces(c.syn); has != c.has || ok != c.ok {
			t.Errorf("%s: %v, %v; want %v, %v", c.name, has, ok, c.has, c.ok)
		}
	}
}

// TestAnnouncesCut: of a SYN that is not there in full nothing is said.
func TestAnnouncesCut(t *testing.T) {
	for _, v := range []int{4, 6} {
		syn := aSYN(v, slices.Concat(usual, ours)...)
		for n := range syn {
			if has, ok := announces(syn[:n]); has || ok {
				t.Errorf("IPv%d, the first %d of %d bytes: %v, %v", v, n, len(syn), has, ok)
			}
		}
	}
}

func FuzzAnnounces(f *testing.F) {
	f.Add(aSYN(4, usual...))
	f.Add(aSYN(6, slices.Concat(usual, ours)...))
	f.Fuzz(func(t *testing.T, syn []byte) {
		if has, ok := announces(syn); has && !ok {
			t.Errorf("% x: it has what cannot be told", syn)
		}
	})
}
