// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ismfs/ismfs/device"
)

// A control is one file that is read and written as a sysfs attribute.
type control struct {
	name  string
	show  func(device.Caller) (string, error)
	store func(device.Caller, string) error // nil: read-only
}

// longestStore is the most that one write may hold, as in sysfs: a page.
const longestStore = 4096

// controlNode is a control's file.
type controlNode struct {
	gofs.Inode
	tree *tree
	control
}

var (
	_ = (gofs.NodeGetattrer)((*controlNode)(nil))
	_ = (gofs.NodeSetattrer)((*controlNode)(nil))
	_ = (gofs.NodeOpener)((*controlNode)(nil))
	_ = (gofs.NodeAccesser)((*controlNode)(nil))
)

func (n *controlNode) mode() uint32 {
	if n.store == nil {
		return 0o444
	}
	return 0o644
}

// Getattr shows the size of a page, as sysfs does: what the file holds is known when it is opened.
func (n *controlNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.tree.fillStatic(&out.Attr, n.mode(), device.PageSize)
	out.SetTimeout(staticTimeout)
	return 0
}

// Setattr lets who may write truncate and touch, to no effect, as sysfs does. Owner and mode are the mount's.
func (n *controlNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	const harmless = fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_CTIME | fuse.FATTR_ATIME_NOW |
		fuse.FATTR_MTIME_NOW | fuse.FATTR_FH | fuse.FATTR_LOCKOWNER | fuse.FATTR_KILL_SUIDGID
	if in.Valid&^harmless != 0 {
		return syscall.EPERM
	}
	if n.store == nil || n.tree.dev.CheckPrivileged(callerOf(ctx)) != nil {
		return syscall.EACCES
	}
	return n.Getattr(ctx, f, out)
}

// Access answers as Open would, which mode and owner do not tell.
func (n *controlNode) Access(ctx context.Context, mask uint32) syscall.Errno {
	const read, write = 4, 2
	if mask&^(read|write) != 0 || mask&write != 0 && (n.store == nil || n.tree.dev.CheckPrivileged(callerOf(ctx)) != nil) {
		return syscall.EACCES
	}
	return 0
}

// Open takes the snapshot that reads of the handle return. Who may not write is told at open already, as by sysfs.
func (n *controlNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	c := callerOf(ctx)
	h := &controlHandle{node: n}
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		if n.store == nil {
			return nil, 0, syscall.EACCES
		}
		if err := n.tree.dev.CheckPrivileged(c); err != nil {
			return nil, 0, syscall.EACCES
		}
	}
	if flags&syscall.O_ACCMODE != syscall.O_WRONLY {
		text, err := n.show(c)
		if err != nil {
			return nil, 0, errno(n.tree.log, err)
		}
		if h.release, err = n.tree.snapshots.take(n.tree.dev, c, len(text)); err != nil {
			return nil, 0, errno(n.tree.log, err)
		}
		h.snapshot = text
	}
	return h, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH, 0
}

// controlHandle is one open of a control.
type controlHandle struct {
	node     *controlNode
	snapshot string
	release  func() // gives the snapshot back; nil: there is none
}

var (
	_ = (gofs.FileReader)((*controlHandle)(nil))
	_ = (gofs.FileWriter)((*controlHandle)(nil))
	_ = (gofs.FileReleaser)((*controlHandle)(nil))
)

func (h *controlHandle) Release(context.Context) syscall.Errno {
	if h.release != nil {
		h.release()
	}
	return 0
}

func (h *controlHandle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if off >= int64(len(h.snapshot)) {
		return fuse.ReadResultData(nil), 0
	}
	n := copy(dest, h.snapshot[off:])
	return fuse.ReadResultData(dest[:n]), 0
}

// Write takes one value; where in the file it is written does not matter, as in sysfs. The writer must be privileged as the
// opener was: a handle can come into other hands.
func (h *controlHandle) Write(ctx context.Context, data []byte, _ int64) (uint32, syscall.Errno) {
	if len(data) > longestStore {
		return 0, syscall.EINVAL
	}
	value := strings.TrimSuffix(string(data), "\n")
	if err := h.node.store(callerOf(ctx), value); err != nil {
		return 0, errno(h.node.tree.log, err)
	}
	return uint32(len(data)), 0
}
