// SPDX-License-Identifier: Apache-2.0

//go:build linux

package dmb

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapFile maps a file, shared and writable, at a multiple of align; 0 is anywhere. Nothing is touched.
func mapFile(fd, size, align int) ([]byte, error) {
	var place unsafe.Pointer
	flags := unix.MAP_SHARED
	if align != 0 {
		var err error
		if place, err = reserve(size, align); err != nil {
			return nil, fmt.Errorf("reserving %d bytes: %w", size, err)
		}
		flags |= unix.MAP_FIXED
	}
	at, err := unix.MmapPtr(fd, 0, place, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		if place != nil {
			unix.MunmapPtr(place, uintptr(size))
		}
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	return unsafe.Slice((*byte)(at), size), nil
}

// mapAnonymous maps memory of this process's own.
func mapAnonymous(size int) ([]byte, error) {
	at, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", size, err)
	}
	return unsafe.Slice((*byte)(at), size), nil
}

// reserve finds a place for size bytes at a multiple of align: it takes more, and gives back what is before and behind.
func reserve(size, align int) (unsafe.Pointer, error) {
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(size+align), unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	before := (align - int(uintptr(base)%uintptr(align))) % align
	place := unsafe.Add(base, before)
	if before > 0 {
		unix.MunmapPtr(base, uintptr(before))
	}
	unix.MunmapPtr(unsafe.Add(place, size), uintptr(align-before))
	return place, nil
}

func unmap(mapping []byte) error {
	if mapping == nil {
		return nil
	}
	return unix.MunmapPtr(unsafe.Pointer(&mapping[0]), uintptr(len(mapping)))
}
