// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tryCollapse makes one huge page as the owner of a DMB does: a memfd, mapped at a multiple of the page's size, populated,
// collapsed. nil: the kernel made it.
func tryCollapse() error {
	fd, err := unix.MemfdCreate("ismfs-doctor", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, hugePage); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	// Twice the size holds a multiple of it somewhere.
	room, err := unix.Mmap(-1, 0, 2*hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(room)
	skip := -uintptr(unsafe.Pointer(&room[0])) % hugePage
	at := unsafe.Pointer(&room[skip])
	if _, err := unix.MmapPtr(fd, 0, at, hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	page := room[skip:][:hugePage]
	if err := unix.Madvise(page, unix.MADV_POPULATE_WRITE); err != nil {
		return fmt.Errorf("MADV_POPULATE_WRITE: %w", err)
	}
	if err := unix.Madvise(page, unix.MADV_COLLAPSE); err != nil {
		return fmt.Errorf("MADV_COLLAPSE: %w", err)
	}
	return nil
}
