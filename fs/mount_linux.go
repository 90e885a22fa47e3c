// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
)

// Errors of [Mount], to be found with errors.Is.
var (
	ErrNoFUSE        = errors.New("no FUSE")
	ErrNoPassthrough = errors.New("no FUSE passthrough")
	ErrNotPermitted  = errors.New("not permitted to mount")
)

// Type is the file system's type in mountinfo.
const Type = "fuse.ismfs"

// Options are how a tree is mounted.
type Options struct {
	Source     string // the first column of mountinfo
	AllowOther bool   // let in other uids than the mounting one
	UID, GID   uint32 // the owner that the tree's own files show
	Mode       uint32 // permission bits of the root directory
	Version    string // shown in stats
	Debug      bool   // log every request
	Log        *slog.Logger
}

// A Server serves one mounted tree.
type Server struct {
	point string
	fuse  *fuse.Server
	done  chan struct{}
}

// Mount mounts a device's tree on an absolute path and serves it.
//
// It mounts by itself, not through fusermount or go-fuse: so /dev/fuse is opened with O_CLOEXEC, and no child of the daemon
// can keep a dead mount hanging.
func Mount(point string, dev *device.Device, o Options) (*Server, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: open /dev/fuse: %w", ErrNoFUSE, err)
	}
	if err := mountAt(point, fd, o); err != nil {
		unix.Close(fd)
		return nil, err
	}
	fs, err := serve(point, fd, dev, o)
	if err != nil {
		return nil, errors.Join(err, unix.Unmount(point, unix.MNT_DETACH))
	}
	return fs, nil
}

const maxWrite = 128 << 10 // of a control file's requests; DMBs do not come here

func mountAt(point string, fd int, o Options) error {
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", fd, unix.Geteuid(), unix.Getegid(), maxWrite)
	if o.AllowOther {
		data += ",allow_other"
	}
	err := unix.Mount(o.Source, point, Type, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, data)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: mount on %s: %w", ErrNotPermitted, point, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: mount on %s: %w (is the fuse module loaded?)", ErrNoFUSE, point, err)
	case err != nil:
		return fmt.Errorf("mount on %s: %w", point, err)
	}
	return nil
}

func serve(point string, fd int, dev *device.Device, o Options) (*Server, error) {
	t := &tree{dev: dev, opts: o, log: o.Log, mounted: time.Now()}
	root, populate := t.newRoot()
	callbacks := &server{log: o.Log}
	logger := slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)
	opts := &gofs.Options{
		MountOptions: fuse.MountOptions{
			MaxWrite:           maxWrite,
			DisableXAttrs:      true, // else every passthrough write asks for security.capability
			DisableReadDirPlus: true, // names alone: attributes come from a look-up that is never cached
			ExtraCapabilities:  fuse.CAP_ATOMIC_O_TRUNC,
			Debug:              o.Debug,
			Logger:             logger,
		},
		FirstAutomaticIno: automaticInode,
		ServerCallbacks:   callbacks,
		OnAdd:             populate,
		Logger:            logger,
	}
	raw := &rawFS{RawFileSystem: gofs.NewNodeFS(root, opts), server: callbacks}
	// go-fuse takes a descriptor that is mounted already by this name.
	srv, err := fuse.NewServer(raw, fmt.Sprintf("/dev/fd/%d", fd), &opts.MountOptions)
	if err != nil { // fd is go-fuse's, also in failure
		return nil, fmt.Errorf("FUSE handshake for %s: %w", point, err)
	}
	s := &Server{point: point, fuse: srv, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		srv.Serve()
	}()
	go t.forgetter.run(s.done)
	if err := probePassthrough(srv); err != nil {
		return nil, err
	}
	return s, nil
}

// Done is closed when the tree is no longer mounted, whoever unmounted it.
func (s *Server) Done() <-chan struct{} { return s.done }

// Unmount takes the tree out of the file system. Error: EBUSY while files in it are open.
func (s *Server) Unmount() error { return s.unmount(0) }

// Detach takes the tree out of sight at once. Files that are open stay usable.
func (s *Server) Detach() error { return s.unmount(unix.MNT_DETACH) }

func (s *Server) unmount(flags int) error {
	if err := unix.Unmount(s.point, flags|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("umount of %s: %w", s.point, err)
	}
	return nil
}
