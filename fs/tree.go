// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"log/slog"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ismfs/ismfs/device"
)

// DeviceName is the device's name in the tree and in the tools (net/smc/smc_loopback.c, smc_lo_dev_name).
const DeviceName = "loopback-ism"

// tree is what all nodes of one mount share.
type tree struct {
	dev       *device.Device
	opts      Options
	log       *slog.Logger
	mounted   time.Time
	forgetter forgetter
	snapshots snapshots
}

// Inode numbers say what a file is and whose: a DMB's is owner's process id << 32 | its number, a procs block's is id << 32,
// a bell's is its DMB's with bellInode set. The rest are given by go-fuse from automaticInode on.
const (
	bellInode      = 1 << 62
	automaticInode = 1 << 63
)

func dmbInode(m *device.DMB) uint64 { return uint64(m.OwnerID)<<32 | uint64(m.Sequence) }

func blockInode(id uint32) uint64 { return uint64(id) << 32 }

// fillStatic fills in what a file of the tree itself, rather than of a client, shows.
func (t *tree) fillStatic(a *fuse.Attr, mode uint32, size uint64) {
	a.Mode = mode
	a.Nlink = 1
	a.Uid, a.Gid = t.opts.UID, t.opts.GID
	a.Size = size
	a.Blksize = device.PageSize
	a.SetTimes(&t.mounted, &t.mounted, &t.mounted)
}

// newRoot builds the nodes that are there for the life of the mount. populate hangs them into the root once go-fuse knows it.
func (t *tree) newRoot() (root *rootDir, populate func(context.Context)) {
	root = &rootDir{fixedDir{sealedDir{tree: t, mode: t.opts.Mode}}}
	return root, func(ctx context.Context) {
		devices := t.addDir(ctx, &root.Inode, "devices", &fixedDir{sealedDir{tree: t, mode: 0o755}})
		dev := t.addDir(ctx, devices, DeviceName, &fixedDir{sealedDir{tree: t, mode: 0o755}})
		for _, c := range t.controls() {
			node := dev.NewPersistentInode(ctx, &controlNode{tree: t, control: c}, gofs.StableAttr{Mode: fuse.S_IFREG})
			dev.AddChild(c.name, node, false)
		}
		// Neither tokens nor process ids come back, so a name that has gone is never another's.
		noDMB := func(name string) bool { return t.findDMB(name) == nil }
		t.forgetter.watch(t.addDir(ctx, dev, "dmbs", &dmbsDir{sealedDir{tree: t, mode: 0o1777}}), noDMB)
		t.forgetter.watch(t.addDir(ctx, dev, "bells", &bellsDir{sealedDir{tree: t, mode: 0o555}}), noDMB)
		t.forgetter.watch(t.addDir(ctx, dev, "procs", &procsDir{sealedDir{tree: t, mode: 0o1777}}), func(name string) bool {
			id, ok := parseProcessID(name)
			return ok && !t.dev.HasBlock(id) // self is no id, and stays
		})
	}
}

func (t *tree) addDir(ctx context.Context, parent *gofs.Inode, name string, dir gofs.InodeEmbedder) *gofs.Inode {
	node := parent.NewPersistentInode(ctx, dir, gofs.StableAttr{Mode: fuse.S_IFDIR})
	parent.AddChild(name, node, false)
	return node
}
