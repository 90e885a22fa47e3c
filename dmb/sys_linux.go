// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	readWrite = unix.O_RDWR
	writeOnly = unix.O_WRONLY
)

// ignoringEINTR repeats a call that a signal interrupted: Go's own preemption signals interrupt requests to the daemon.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func openFile(path string, flags int) (fd int, err error) {
	err = ignoringEINTR(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func createFile(path string) (int, error) {
	return openFile(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
}

func openOrCreateFile(path string) (int, error) { return openFile(path, unix.O_RDWR|unix.O_CREAT) }

// openFIFO opens for both, so that no open waits for the other end and none ever sees an end of file.
func openFIFO(path string) (int, error) { return openFile(path, unix.O_RDWR|unix.O_NONBLOCK) }

func closeFile(fd int) error { return os.NewSyscallError("close", unix.Close(fd)) }

func truncate(fd, size int) error {
	err := ignoringEINTR(func() error { return unix.Ftruncate(fd, int64(size)) })
	return os.NewSyscallError("ftruncate", err)
}

// status is what fstat tells of a file of the device (docs/dmb-format.md 1.6).
type status struct {
	size     int64
	links    int
	owner    uint32 // procs id
	readable bool   // by others: a DMB is merged
}

func stat(fd int) (status, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) })
	return status{st.Size, int(st.Nlink), uint32(st.Ino >> 32 & (1<<30 - 1)), st.Mode&0o044 != 0}, os.NewSyscallError("fstat", err)
}

// adviseHugePages is a wish: a kernel may be built without them.
func adviseHugePages(mapping []byte, yes bool) {
	advice := unix.MADV_NOHUGEPAGE
	if yes {
		advice = unix.MADV_HUGEPAGE
	}
	unix.Madvise(mapping, advice)
}

// collapse asks for huge pages that populating did not get. It is a wish too.
func collapse(mapping []byte) { unix.Madvise(mapping, unix.MADV_COLLAPSE) }

// populate makes every page be there, so that a shortage is an error now and not a SIGBUS later.
func populate(mapping []byte) error {
	for {
		switch err := unix.Madvise(mapping, unix.MADV_POPULATE_WRITE); err {
		case nil:
			return nil
		case unix.EINTR, unix.EAGAIN:
		case unix.EFAULT:
			return fmt.Errorf("populating %d bytes: %w", len(mapping), unix.ENOMEM)
		default:
			return fmt.Errorf("populating %d bytes: %w", len(mapping), err)
		}
	}
}

// unpopulate gives a mapping's pages back.
func unpopulate(mapping []byte) { unix.Madvise(mapping, unix.MADV_REMOVE) }

func pwriteAll(fd int, p []byte, off int) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, int64(off))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("pwrite", err)
		case n == 0:
			return io.ErrShortWrite
		}
		p, off = p[n:], off+n
	}
	return nil
}

// ring is what a bell's FIFO is given; what it holds does not matter.
var ring = []byte{0}

func writeByte(fd int) {
	for {
		if _, err := unix.Write(fd, ring); err != unix.EINTR {
			return
		}
	}
}

// readBytes takes what is in a FIFO, or its first bytes: nil, or why there are none.
func readBytes(fd int) error {
	var b [256]byte
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n <= 0:
			return syscall.EPIPE
		}
		return nil
	}
}
