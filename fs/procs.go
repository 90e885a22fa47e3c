// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"strconv"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ismfs/ismfs/device"
)

// procsDir is procs/: one block per process that has made one, named by the device's id of the process, and self, a link to
// the caller's own.
type procsDir struct {
	sealedDir
}

const selfName = "self"

var (
	_ = (gofs.NodeLookuper)((*procsDir)(nil))
	_ = (gofs.NodeReaddirer)((*procsDir)(nil))
	_ = (gofs.NodeCreater)((*procsDir)(nil))
)

func (n *procsDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if name == selfName {
		link := &selfLink{tree: n.tree}
		n.tree.fillStatic(&out.Attr, 0o777, 0)
		return n.NewInode(ctx, link, gofs.StableAttr{Mode: fuse.S_IFLNK, Ino: selfInode}), 0
	}
	id, ok := parseProcessID(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	info, ok := n.tree.dev.Block(callerOf(ctx), id)
	if !ok {
		return nil, syscall.ENOENT
	}
	fillBlock(&out.Attr, info)
	return n.child(ctx, id), 0
}

// selfInode is among the numbers below those of DMBs made from a shell.
const selfInode = 2

// parseProcessID reads an id as it is written: decimal, without leading zeros.
func parseProcessID(name string) (uint32, bool) {
	id, err := strconv.ParseUint(name, 10, 30)
	return uint32(id), err == nil && id != 0 && strconv.FormatUint(id, 10) == name
}

func (n *procsDir) child(ctx context.Context, id uint32) *gofs.Inode {
	return n.NewInode(ctx, &blockNode{tree: n.tree, id: id}, gofs.StableAttr{Mode: fuse.S_IFREG, Ino: blockInode(id)})
}

func (n *procsDir) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	list, err := n.tree.dev.ListBlocks(callerOf(ctx))
	if err != nil {
		return nil, errno(n.tree.log, err)
	}
	entries := []fuse.DirEntry{{Name: selfName, Mode: fuse.S_IFLNK, Ino: selfInode}}
	for _, b := range list {
		entries = append(entries, fuse.DirEntry{
			Name: strconv.FormatUint(uint64(b.ID), 10), Mode: fuse.S_IFREG, Ino: blockInode(b.ID),
		})
	}
	return gofs.NewListDirStream(entries), 0
}

// Create makes the caller's own block.
func (n *procsDir) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	id, ok := parseProcessID(name)
	if !ok {
		return nil, nil, 0, syscall.EINVAL
	}
	c := callerOf(ctx)
	h, err := n.tree.dev.CreateBlock(c, id)
	if err != nil {
		return nil, nil, 0, errno(n.tree.log, err)
	}
	if info, ok := n.tree.dev.Block(c, id); ok {
		fillBlock(&out.Attr, info)
	}
	return n.child(ctx, id), &blockHandle{h}, passthroughFlags, 0
}

// selfLink is procs/self: like /proc/self, it leads every process to its own.
type selfLink struct {
	gofs.Inode
	tree *tree
}

var (
	_ = (gofs.NodeReadlinker)((*selfLink)(nil))
	_ = (gofs.NodeGetattrer)((*selfLink)(nil))
	_ = (gofs.NodeSetattrer)((*selfLink)(nil))
)

func (n *selfLink) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	id, err := n.tree.dev.ProcessID(callerOf(ctx))
	if err != nil {
		return nil, errno(n.tree.log, err)
	}
	return strconv.AppendUint(nil, uint64(id), 10), 0
}

func (n *selfLink) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.tree.fillStatic(&out.Attr, 0o777, 0)
	return 0
}

func (n *selfLink) Setattr(context.Context, gofs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

// blockNode is procs/<id>.
type blockNode struct {
	gofs.Inode
	tree *tree
	id   uint32
}

var (
	_ = (gofs.NodeGetattrer)((*blockNode)(nil))
	_ = (gofs.NodeSetattrer)((*blockNode)(nil))
	_ = (gofs.NodeOpener)((*blockNode)(nil))
	_ = (gofs.NodeReleaser)((*blockNode)(nil))
)

// blockHandle is one open of a procs block. As a DMB's it has no Read and no Write.
type blockHandle struct {
	*device.BlockHandle
}

var _ = (gofs.FilePassthroughFder)((*blockHandle)(nil))

func (h *blockHandle) PassthroughFd() (int, bool) { return h.FD(), true }

func fillBlock(a *fuse.Attr, b device.BlockInfo) {
	a.Mode = 0o600
	a.Nlink = 1
	a.Uid = b.UID
	a.Size = uint64(b.Size)
	a.Blocks = uint64(b.Populated / 512)
	a.Blksize = device.PageSize
	a.SetTimes(&b.Made, &b.Made, &b.Made)
}

// Getattr answers ESTALE once the process has gone: a block's last numbers are in stats then.
func (n *blockNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	info, ok := n.tree.dev.Block(callerOf(ctx), n.id)
	if !ok {
		return syscall.ESTALE
	}
	fillBlock(&out.Attr, info)
	return 0
}

func (n *blockNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := refuseOwnerAndMode(in); e != 0 {
		return e
	}
	if size, ok := in.GetSize(); ok {
		if err := n.tree.dev.SetBlockSize(callerOf(ctx), n.id, sizeOf(size)); err != nil {
			return errno(n.tree.log, err)
		}
	}
	return n.Getattr(ctx, f, out)
}

func (n *blockNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	c := callerOf(ctx)
	if flags&syscall.O_TRUNC != 0 {
		if info, ok := n.tree.dev.Block(c, n.id); ok && info.Size != 0 {
			return nil, 0, syscall.EPERM
		}
	}
	h, err := n.tree.dev.OpenBlock(c, n.id, accessOf(flags))
	if err != nil {
		return nil, 0, errno(n.tree.log, err)
	}
	return &blockHandle{h}, passthroughFlags, 0
}

func (n *blockNode) Release(_ context.Context, f gofs.FileHandle) syscall.Errno {
	n.tree.dev.CloseBlock(f.(*blockHandle).BlockHandle)
	n.tree.forgetter.soon()
	return 0
}
