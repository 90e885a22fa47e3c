// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// memory is the memfd behind a DMB or a procs block. Nobody but the daemon ever holds the memfd itself: clients reach it
// through FUSE passthrough, with the access that they opened the file with.
//
// It never grows: F_SEAL_GROW stands from the start, and the memfd begins at the size of a reservation and is cut to its
// final one. Otherwise a write through a handle on a DMB that has no size yet would take memory that no limit sees. Once it
// has its size it does not shrink either, so no mapping of it, the daemon's included, can meet SIGBUS at its end.
type memory struct {
	fd   int
	uid  uint32 // who is charged
	size int64  // final size, 0 while it is open
	held int64  // bytes charged: the reservation, then the size

	// firstPage is mapped when a word in it is first signalled, and stays so: a mapping that comes and goes costs an
	// interrupt of the daemon's other threads each time.
	firstPage []byte
}

// newMemory makes a memfd of n bytes that can only shrink. It allocates no pages.
func newMemory(uid uint32, n int64) (*memory, error) {
	fd, err := unix.MemfdCreate("ismfs", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // MFD_NOEXEC_SEAL is from Linux 6.3
		fd, err = unix.MemfdCreate("ismfs", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	m := &memory{fd: fd, uid: uid, held: n}
	if err := unix.Ftruncate(fd, n); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ftruncate of a memfd to %d bytes: %w", n, err)
	}
	if err := m.seal(unix.F_SEAL_GROW); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return m, nil
}

func (m *memory) seal(seals int) error {
	if _, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealing a memfd: %w", err)
	}
	return nil
}

// fix gives the memory its final size, at most the reservation. Whatever was written beyond is gone.
func (m *memory) fix(size int64) error {
	if err := unix.Ftruncate(m.fd, size); err != nil {
		return fmt.Errorf("ftruncate of a memfd to %d bytes: %w", size, err)
	}
	if err := m.seal(unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL); err != nil {
		return err
	}
	m.size = size
	return nil
}

// dup returns a descriptor of its own for somebody who does not keep the memory alive.
func (m *memory) dup() (int, error) {
	fd, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("dup of a memfd: %w", err)
	}
	return fd, nil
}

// free gives the pages back even where somebody kept a mapping after closing its handle: such a mapping reads zeros from
// then on, and what it touches is charged to its own process.
func (m *memory) free() error {
	if m.firstPage != nil {
		unix.Munmap(m.firstPage)
	}
	err := unix.Fallocate(m.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, m.held)
	if cerr := unix.Close(m.fd); err == nil {
		err = cerr
	}
	return err
}

// populated returns how many bytes of it are backed by pages.
func (m *memory) populated() int64 {
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil {
		return 0
	}
	return st.Blocks * 512
}
