// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// passthroughFlags are what every open of a memfd-backed file answers. FOPEN_PASSTHROUGH is set here, and not only by go-fuse
// when it has registered the backing file: without a backing id the kernel then refuses the open with EIO, instead of going
// through the daemon and a page cache of its own.
const passthroughFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH

// server stands between go-fuse's bridge and the kernel. The bridge takes the first failure to register a backing file for a
// sign that there is no passthrough, and serves the whole mount without it from then on. Here passthrough is known to work
// (probePassthrough) and a failure concerns one open alone.
type server struct {
	*fuse.Server
	log *slog.Logger
}

var _ gofs.ServerCallbacks = (*server)(nil)

func (s *server) RegisterBackingFd(m *fuse.BackingMap) (int32, syscall.Errno) {
	id, e := s.Server.RegisterBackingFd(m)
	if e != 0 {
		s.log.Error("cannot register a DMB for passthrough; this open fails", "err", e)
		return 0, 0
	}
	return id, 0
}

// rawFS is go-fuse's bridge with our server under it.
//
// The bridge releases a handle in two steps, first our side of it and then the inode's backing file, and opens in the same
// order. Our side may free the memfd with the last handle and make another with the next (a DMB that has no size yet), so an
// open between the two steps would get the new memfd's handle on the old one's backing file. The lock keeps each whole.
type rawFS struct {
	fuse.RawFileSystem
	server *server
	mu     sync.RWMutex // read: opening; written: releasing
}

func (r *rawFS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.RawFileSystem.Create(cancel, in, name, out)
}

func (r *rawFS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.RawFileSystem.Open(cancel, in, out)
}

func (r *rawFS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.RawFileSystem.Release(cancel, in)
}

// Init replaces the bridge's own, which only stores the *fuse.Server in place of Options.ServerCallbacks.
func (r *rawFS) Init(s *fuse.Server) { r.server.Server = s }

// probePassthrough finds out whether DMBs can be shared on this mount: the kernel's word, then a registration.
func probePassthrough(s *fuse.Server) error {
	if s.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		return fmt.Errorf("%w: this kernel's FUSE has no passthrough (it needs Linux 6.9 with CONFIG_FUSE_PASSTHROUGH)", ErrNoPassthrough)
	}
	fd, err := unix.MemfdCreate("ismfs-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	id, e := s.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	switch e {
	case 0:
		s.UnregisterBackingFd(id)
		return nil
	case syscall.EPERM:
		return fmt.Errorf("%w: registering a backing file needs CAP_SYS_ADMIN in the initial user namespace: %w", ErrNoPassthrough, e)
	}
	return fmt.Errorf("%w: registering a backing file: %w", ErrNoPassthrough, e)
}
