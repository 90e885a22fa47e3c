// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// staticTimeout is how long the kernel may keep what never changes while the mount lasts.
const staticTimeout = time.Hour

// sealedDir is what all directories have in common: nothing in them can be made, removed, renamed or changed, unless the
// directory that embeds it says otherwise. (go-fuse's own answer to Unlink and Rmdir is success.)
type sealedDir struct {
	gofs.Inode
	tree *tree
	mode uint32 // permission bits
}

var (
	_ = (gofs.NodeGetattrer)((*sealedDir)(nil))
	_ = (gofs.NodeSetattrer)((*sealedDir)(nil))
	_ = (gofs.NodeStatfser)((*sealedDir)(nil))
	_ = (gofs.NodeUnlinker)((*sealedDir)(nil))
	_ = (gofs.NodeRmdirer)((*sealedDir)(nil))
	_ = (gofs.NodeRenamer)((*sealedDir)(nil))
	_ = (gofs.NodeLinker)((*sealedDir)(nil))
	_ = (gofs.NodeSymlinker)((*sealedDir)(nil))
	_ = (gofs.NodeMkdirer)((*sealedDir)(nil))
	_ = (gofs.NodeMknoder)((*sealedDir)(nil))
	_ = (gofs.NodeCreater)((*sealedDir)(nil))
)

func (n *sealedDir) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.tree.fillStatic(&out.Attr, n.mode, 0)
	out.SetTimeout(staticTimeout)
	return 0
}

func (n *sealedDir) Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

// Statfs shows the device's memory limit as a file system's size and its DMBs as inodes.
func (n *sealedDir) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	s := n.tree.dev.Statistics(callerOf(ctx))
	const block = 4096
	out.Bsize, out.Frsize, out.NameLen = block, block, 16
	out.Blocks = uint64(s.Limits.MaxBytes / block)
	out.Bfree = uint64(max(s.Limits.MaxBytes-s.Bytes, 0) / block)
	out.Bavail = out.Bfree
	out.Files = uint64(s.Limits.MaxDMBs)
	out.Ffree = uint64(max(s.Limits.MaxDMBs-s.DMBs, 0))
	return 0
}

func (n *sealedDir) Unlink(context.Context, string) syscall.Errno { return syscall.EPERM }
func (n *sealedDir) Rmdir(context.Context, string) syscall.Errno  { return syscall.EPERM }

func (n *sealedDir) Rename(context.Context, string, gofs.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EPERM
}

func (n *sealedDir) Link(context.Context, gofs.InodeEmbedder, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (n *sealedDir) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (n *sealedDir) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (n *sealedDir) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (n *sealedDir) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EPERM
}

// fixedDir is a directory whose entries are there for the life of the mount.
type fixedDir struct {
	sealedDir
}

var _ = (gofs.NodeLookuper)((*fixedDir)(nil))

func (n *fixedDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	child := n.GetChild(name)
	if child == nil {
		return nil, syscall.ENOENT
	}
	var attr fuse.AttrOut
	if e := child.Operations().(gofs.NodeGetattrer).Getattr(ctx, nil, &attr); e != 0 {
		return nil, e
	}
	out.Attr = attr.Attr
	out.SetAttrTimeout(staticTimeout)
	out.SetEntryTimeout(staticTimeout)
	return child, 0
}

// rootDir is a fixedDir that lets in whom the mount's mode lets in.
type rootDir struct {
	fixedDir
}

var (
	_ = (gofs.NodeAccesser)((*rootDir)(nil))
	_ = (gofs.NodeOpendirer)((*rootDir)(nil))
)

func (n *rootDir) mayEnter(ctx context.Context) syscall.Errno {
	o := &n.tree.opts
	if !mayEnter(callerOf(ctx), o.UID, o.GID, o.Mode) {
		return syscall.EACCES
	}
	return 0
}

func (n *rootDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if e := n.mayEnter(ctx); e != 0 {
		return nil, e
	}
	child, e := n.fixedDir.Lookup(ctx, name, out)
	if n.tree.opts.Mode&everybodyEnters != everybodyEnters {
		out.SetEntryTimeout(0) // ask again for every caller: the kernel checks nothing itself
	}
	return child, e
}

func (n *rootDir) Opendir(ctx context.Context) syscall.Errno { return n.mayEnter(ctx) }

// Access is asked by chdir(2), too. (go-fuse's own looks for the caller's groups in /etc/group, where a process that has been
// given a group need not stand.)
func (n *rootDir) Access(ctx context.Context, mask uint32) syscall.Errno {
	if mask == 0 {
		return 0
	}
	return n.mayEnter(ctx)
}
