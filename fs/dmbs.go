// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
)

// dmbsDir is dmbs/. To know a token is to be allowed to look it up; to list, a DMB must be one's own.
type dmbsDir struct {
	sealedDir
}

var (
	_ = (gofs.NodeLookuper)((*dmbsDir)(nil))
	_ = (gofs.NodeReaddirer)((*dmbsDir)(nil))
	_ = (gofs.NodeCreater)((*dmbsDir)(nil))
	_ = (gofs.NodeUnlinker)((*dmbsDir)(nil))
)

func (n *dmbsDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	m := n.tree.findDMB(name)
	if m == nil {
		return nil, syscall.ENOENT
	}
	n.tree.fillDMB(&out.Attr, m)
	return n.child(ctx, m), 0
}

// findDMB returns the DMB that a name in dmbs/ or bells/ means, nil if it means none.
func (t *tree) findDMB(name string) *device.DMB {
	token, ok := device.ParseToken(name)
	if !ok {
		return nil
	}
	return t.dev.LookupDMB(token)
}

// child returns the node of a DMB. go-fuse finds the one there is by its inode number.
func (n *dmbsDir) child(ctx context.Context, m *device.DMB) *gofs.Inode {
	return n.NewInode(ctx, &dmbNode{tree: n.tree, dmb: m}, gofs.StableAttr{Mode: fuse.S_IFREG, Ino: dmbInode(m)})
}

func (n *dmbsDir) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	return n.tree.listDMBs(ctx, fuse.S_IFREG, 0)
}

// listDMBs lists what is the caller's to see of dmbs/ or bells/.
func (t *tree) listDMBs(ctx context.Context, mode uint32, inodeBit uint64) (gofs.DirStream, syscall.Errno) {
	list, err := t.dev.ListDMBs(callerOf(ctx))
	if err != nil {
		return nil, errno(t.log, err)
	}
	entries := make([]fuse.DirEntry, len(list))
	for i, m := range list {
		entries[i] = fuse.DirEntry{Name: m.Token.String(), Mode: mode, Ino: dmbInode(m) | inodeBit}
	}
	return gofs.NewListDirStream(entries), 0
}

// attachTimeout is how long the kernel may find a new DMB's name by itself: the peer, told the token, opens it at once and is
// spared a look-up. The device is asked at the open all the same.
const attachTimeout = time.Second

// Create registers a DMB: leased with O_EXCL, else as one made from a shell.
func (n *dmbsDir) Create(ctx context.Context, name string, flags, _ uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	token, ok := device.ParseToken(name)
	if !ok {
		return nil, nil, 0, syscall.EINVAL
	}
	h, err := n.tree.dev.RegisterDMB(callerOf(ctx), token, flags&syscall.O_EXCL != 0)
	if err != nil {
		return nil, nil, 0, errno(n.tree.log, err)
	}
	n.tree.fillDMB(&out.Attr, h.DMB)
	out.SetEntryTimeout(attachTimeout)
	return n.child(ctx, h.DMB), &dmbHandle{h}, passthroughFlags, 0
}

func (n *dmbsDir) Unlink(ctx context.Context, name string) syscall.Errno {
	token, ok := device.ParseToken(name)
	if !ok {
		return syscall.ENOENT
	}
	err := n.tree.dev.UnregisterDMB(callerOf(ctx), token)
	if errors.Is(err, unix.EINVAL) { // the kernel's word for a token that it does not know
		return syscall.ENOENT
	}
	return errno(n.tree.log, err)
}

// dmbNode is dmbs/<token>.
type dmbNode struct {
	gofs.Inode
	tree *tree
	dmb  *device.DMB
}

var (
	_ = (gofs.NodeGetattrer)((*dmbNode)(nil))
	_ = (gofs.NodeSetattrer)((*dmbNode)(nil))
	_ = (gofs.NodeOpener)((*dmbNode)(nil))
	_ = (gofs.NodeReleaser)((*dmbNode)(nil))
)

// dmbHandle is one open of a DMB. Without a Read or a Write method, an access that does not pass through fails rather than
// show bytes that only look shared.
type dmbHandle struct {
	*device.Handle
}

var _ = (gofs.FilePassthroughFder)((*dmbHandle)(nil))

func (h *dmbHandle) PassthroughFd() (int, bool) { return h.FD(), true }

func (t *tree) fillDMB(a *fuse.Attr, m *device.DMB) device.DMBInfo {
	i := m.Info()
	a.Mode = 0o666 // whoever knows the token may ask; the device decides at open
	if i.Copy {
		a.Mode = 0o622 // a peer may only write: so an owner learns its DMB's mode
	}
	a.Nlink = i.Refs
	a.Uid, a.Gid = m.Owner.UID, m.Owner.GID
	a.Size = uint64(i.Size)
	a.Blocks = uint64(i.Populated / 512)
	a.Blksize = device.PageSize
	a.SetTimes(&m.Made, &m.Made, &m.Made)
	return i
}

func (n *dmbNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if n.tree.fillDMB(&out.Attr, n.dmb).Gone { // found under a name that the kernel still had
		return syscall.ENOENT
	}
	out.Blksize = uint32(n.dmb.PageSize()) // not at look-up, which every open waits for
	return 0
}

// Setattr takes a size, once. Times are ignored, mode and owner stay.
func (n *dmbNode) Setattr(ctx context.Context, _ gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := refuseOwnerAndMode(in); e != 0 {
		return e
	}
	if size, ok := in.GetSize(); ok {
		if err := n.dmb.SetSize(callerOf(ctx), sizeOf(size)); err != nil {
			return errno(n.tree.log, err)
		}
	}
	n.tree.fillDMB(&out.Attr, n.dmb)
	return 0
}

// refuseOwnerAndMode refuses what nobody may change about a client's file.
func refuseOwnerAndMode(in *fuse.SetAttrIn) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	return 0
}

// sizeOf keeps a size that no int64 holds as what it is: too large.
func sizeOf(size uint64) int64 { return int64(min(size, 1<<63-1)) }

func (n *dmbNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 && n.dmb.Info().Size != 0 {
		return nil, 0, syscall.EPERM
	}
	h, err := n.tree.dev.AttachDMB(callerOf(ctx), n.dmb, accessOf(flags))
	if err != nil {
		return nil, 0, errno(n.tree.log, err)
	}
	return &dmbHandle{h}, passthroughFlags, 0
}

func (n *dmbNode) Release(_ context.Context, f gofs.FileHandle) syscall.Errno {
	n.tree.dev.DetachDMB(f.(*dmbHandle).Handle)
	n.tree.forgetter.soon()
	return 0
}

func accessOf(flags uint32) device.Access {
	switch flags & syscall.O_ACCMODE {
	case syscall.O_RDONLY:
		return device.ReadOnly
	case syscall.O_WRONLY:
		return device.WriteOnly
	}
	return device.ReadWrite
}
