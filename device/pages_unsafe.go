// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageMeasure remembers for a while what a look into the page tables has found, since a look costs tens of microseconds and
// more, and fstat is what clients call to see whether their peer lives.
type pageMeasure struct {
	at   time.Time
	page int64
}

const measureAgain = 10 * time.Second

func (p *pageMeasure) of(m *memory, now time.Time) int64 {
	if p.page == 0 || now.Sub(p.at) > measureAgain {
		p.page, p.at = pageSizeOf(m), now
	}
	return p.page
}

// smallFolios remembers for a while whether the kernel gives shared memory any pages between 4 KiB and 2 MiB. Where it does
// not, which is the default, nothing need be measured of a DMB below 2 MiB.
type smallFolios struct {
	at time.Time
	on bool
}

func (s *smallFolios) possible(now time.Time) bool {
	if s.at.IsZero() || now.Sub(s.at) > measureAgain {
		s.at, s.on = now, anySmallFolios("/sys/kernel/mm/transparent_hugepage")
	}
	return s.on
}

// anySmallFolios reads the kernel's settings. By default that of 2 MiB says inherit, and the others never.
func anySmallFolios(dir string) bool {
	settings, err := filepath.Glob(filepath.Join(dir, "hugepages-*kB", "shmem_enabled"))
	if err != nil {
		return false
	}
	for _, path := range settings {
		if filepath.Base(filepath.Dir(path)) != "hugepages-2048kB" && gives(path, dir) {
			return true
		}
	}
	return false
}

// gives reports whether a setting lets shared memory have pages. It can inherit from the one for all sizes.
func gives(path, dir string) bool {
	text, err := os.ReadFile(path)
	if err == nil && bytes.Contains(text, []byte("[inherit]")) {
		text, err = os.ReadFile(filepath.Join(dir, "shmem_enabled"))
	}
	return err == nil && !bytes.Contains(text, []byte("[never]")) && !bytes.Contains(text, []byte("[deny]"))
}

// hugePage is the size from which a DMB can have a page of that size.
const hugePage = 2 << 20

// pageSizeOf returns the size of the physically contiguous pages (folios) that back most of a populated memory: the largest
// size such that at least half of the memory lies in folios that large. 4096 if the kernel does not tell.
func pageSizeOf(m *memory) int64 {
	mapping, err := unix.Mmap(m.fd, 0, int(m.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return PageSize
	}
	defer unix.Munmap(mapping)
	if err := unix.Madvise(mapping, unix.MADV_POPULATE_READ); err != nil {
		return PageSize
	}
	frames, err := framesOf(mapping)
	if err != nil {
		return PageSize
	}
	flags, err := os.Open("/proc/kpageflags")
	if err != nil {
		return PageSize
	}
	defer flags.Close()
	inFolios := make(map[int64]int64) // folio size to bytes in such folios
	for i := 0; i < len(frames); {
		n := folioRun(flags, frames[i:])
		size := int64(n) * PageSize
		inFolios[size] += size
		i += n
	}
	return weightedMedian(inFolios, m.size)
}

// folioRun returns how many pages from the first on belong to one folio: in kpageflags a head followed by tails, in
// physically consecutive frames.
func folioRun(flags *os.File, frames []uint64) int {
	const (
		head, tail = 1 << 15, 1 << 16 // KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL
		most       = 512              // pages of a folio that shared memory can have: one PMD
	)
	var buf [8 * most]byte
	flag := func(i int) uint64 { return binary.NativeEndian.Uint64(buf[8*i:]) }
	if n, _ := flags.ReadAt(buf[:8], int64(frames[0])*8); n < 8 || flag(0)&head == 0 {
		return 1
	}
	n, _ := flags.ReadAt(buf[:8*min(most, len(frames))], int64(frames[0])*8)
	run := 1
	for run < n/8 && frames[run] == frames[0]+uint64(run) && flag(run)&tail != 0 {
		run++
	}
	return run
}

// framesOf returns the physical frame number of each page of a mapping, from /proc/self/pagemap.
func framesOf(mapping []byte) ([]uint64, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, len(mapping)/PageSize*8)
	if _, err := f.ReadAt(buf, int64(uintptr(unsafe.Pointer(&mapping[0])))/PageSize*8); err != nil {
		return nil, err
	}
	frames := make([]uint64, len(buf)/8)
	for i := range frames {
		frames[i] = binary.NativeEndian.Uint64(buf[8*i:]) & (1<<55 - 1)
	}
	return frames, nil
}

func weightedMedian(bytesIn map[int64]int64, total int64) int64 {
	var best int64 = PageSize
	for size := range bytesIn {
		var atLeast int64
		for s, n := range bytesIn {
			if s >= size {
				atLeast += n
			}
		}
		if 2*atLeast >= total {
			best = max(best, size)
		}
	}
	return best
}
