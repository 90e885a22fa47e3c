// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ismfs/ismfs/device"
)

// bellsDir is bells/: one FIFO per DMB. The kernel serves an open FIFO alone and checks no mode on it here, so the look-up is
// the gate, asked every time.
type bellsDir struct {
	sealedDir
}

var (
	_ = (gofs.NodeLookuper)((*bellsDir)(nil))
	_ = (gofs.NodeReaddirer)((*bellsDir)(nil))
)

// Lookup finds a bell by its DMB's token. While anybody has the FIFO open its kernel inode lives, and with it go-fuse's node,
// so that everybody meets in the same FIFO.
func (n *bellsDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	m := n.tree.findDMB(name)
	if m == nil {
		return nil, syscall.ENOENT
	}
	bell := &bellNode{tree: n.tree, dmb: m}
	bell.fill(&out.Attr)
	return n.NewInode(ctx, bell, gofs.StableAttr{Mode: fuse.S_IFIFO, Ino: dmbInode(m) | bellInode}), 0
}

func (n *bellsDir) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	return n.tree.listDMBs(ctx, fuse.S_IFIFO, bellInode)
}

// bellNode is bells/<token>.
type bellNode struct {
	gofs.Inode
	tree *tree
	dmb  *device.DMB
}

var (
	_ = (gofs.NodeGetattrer)((*bellNode)(nil))
	_ = (gofs.NodeSetattrer)((*bellNode)(nil))
)

func (n *bellNode) fill(a *fuse.Attr) {
	n.tree.fillStatic(a, 0o666, 0)
	a.Uid, a.Gid = n.dmb.Owner.UID, n.dmb.Owner.GID
	a.SetTimes(&n.dmb.Made, &n.dmb.Made, &n.dmb.Made)
}

func (n *bellNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.fill(&out.Attr)
	return 0
}

func (n *bellNode) Setattr(ctx context.Context, f gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := refuseOwnerAndMode(in); e != 0 {
		return e
	}
	return n.Getattr(ctx, f, out)
}
