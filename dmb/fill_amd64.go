// SPDX-License-Identifier: Apache-2.0

//go:build !race

package dmb

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

const (
	fillLeast = 2 << 10 // below that the instruction's start costs as much as it gains
	lineSize  = 64
	pageMask  = 4<<10 - 1
)

// fill copies src into a ring, to dst, which is as long. The other side's CPU has its cache lines, since it has read what was there before.
// A store to a part of a line fetches it from there first; REP MOVSB is known to the CPU to write whole lines, and only takes them.
// Writer and reader on two CPUs of an AMD EPYC (Zen 5, 2026-11-27), both copying: 28 GB/s of 64,000 B messages where stores of 32 B, which
// is what copy does there, give 5.8, and 7.3 against 4.3 of 4,000 B; on one CPU 42 and 29 in a ring of 1 MiB, in smaller ones the same.
//
// Not where dst is at src's place in its page, or little behind it: AMD's Zen 3 and 4 are slower at it there (glibc's bug 30994), and Zen 5 not
// faster.
func fill(dst, src []byte) {
	if !cpu.X86.HasERMS || len(src) < fillLeast || (address(dst)-address(src))&pageMask < lineSize {
		copy(dst, src)
		return
	}
	n := copy(dst[:-address(dst)&(lineSize-1)], src)
	repMovsb(&dst[n], &src[n], uintptr(len(src)-n))
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

//go:noescape
func repMovsb(dst, src *byte, n uintptr)
