// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// A segment is a TCP segment in an IP packet.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	options  []byte
	payload  []byte
}

// parseSegment reads an IP packet. It is no TCP segment, or cut: false.
func parseSegment(p []byte) (s segment, ok bool) {
	var src, dst netip.Addr
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && p[9] == 6:
		src, dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		p = p[int(p[0]&15)*4 : binary.BigEndian.Uint16(p[2:])]
	case len(p) >= 40 && p[0]>>4 == 6 && p[6] == 6:
		src, dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		p = p[40:]
	default:
		return s, false
	}
	if len(p) < 20 || len(p) < int(p[12]>>4)*4 {
		return s, false
	}
	header := int(p[12]>>4) * 4
	return segment{
		from: netip.AddrPortFrom(src, binary.BigEndian.Uint16(p)), to: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(p[2:])),
		seq: binary.BigEndian.Uint32(p[4:]), ack: binary.BigEndian.Uint32(p[8:]),
		flags: p[13], options: bytes.Clone(p[20:header]), payload: bytes.Clone(p[header:]),
	}, true
}

// packet4 returns the segment in an IPv4 packet.
func (s segment) packet4() []byte {
	options := append(bytes.Clone(s.options), make([]byte, -len(s.options)&3)...)
	t := make([]byte, 20, 20+len(options)+len(s.payload))
	binary.BigEndian.PutUint16(t, s.from.Port())
	binary.BigEndian.PutUint16(t[2:], s.to.Port())
	binary.BigEndian.PutUint32(t[4:], s.seq)
	binary.BigEndian.PutUint32(t[8:], s.ack)
	t[12], t[13] = byte(20+len(options))/4<<4, s.flags
	binary.BigEndian.PutUint16(t[14:], 64240)
	t = append(append(t, options...), s.payload...)

	src, dst := s.from.Addr().As4(), s.to.Addr().As4()
	pseudo := append(append(bytes.Clone(src[:]), dst[:]...), 0, 6, byte(len(t)>>8), byte(len(t)))
	binary.BigEndian.PutUint16(t[16:], checksum(append(pseudo, t...)))

	ip := []byte{0x45, 0, byte((20 + len(t)) >> 8), byte(20 + len(t)), 0, 0, 0x40, 0, 64, 6, 0, 0}
	ip = append(append(ip, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(ip, t...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (^i & 1))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// experimental returns the options of kind 253 and 254.
func (s segment) experimental() (found [][]byte, err error) {
	for o := s.options; len(o) > 0; {
		switch {
		case o[0] == 0:
			return found, nil
		case o[0] == 1:
			o = o[1:]
			continue
		case len(o) < 2 || o[1] < 2 || int(o[1]) > len(o):
			return found, fmt.Errorf("broken options % x", s.options)
		case o[0] >= 253:
			found = append(found, o[:o[1]])
		}
		o = o[o[1]:]
	}
	return found, nil
}

// ourOption is the option byte for byte.
func ourOption(direction byte, tag smcopt.Tag) []byte {
	return append([]byte{254, 14, 0xE2, 0xD4, 0xC3, 0xD9, direction}, tag[:]...)
}

// kernelOption is the one that the kernel sends, without the two NOPs before it.
var kernelOption = []byte{254, 6, 0xE2, 0xD4, 0xC3, 0xD9}
