// SPDX-License-Identifier: Apache-2.0

package fs

import (
	gofs "github.com/hanwen/go-fuse/v2/fs"

	"github.com/ismfs/ismfs/device"
)

// A forgetter tells the kernel which DMBs have lost their names. The kernel keeps a name and its inode after the last close
// until it is short of memory itself, and the daemon keeps a node for each until the kernel forgets it: 0.5 KiB here and over
// 1 KiB there for every DMB that ever was.
//
// It does so in a goroutine of its own, since the kernel takes the directory's lock for it and whoever holds that may be
// waiting for the daemon.
type forgetter struct {
	dmbs, bells *gofs.Inode // their directories
	tokens      chan device.Token
}

// forgetQueue is how many names can wait. When more do, the rest stays until the kernel needs the memory.
const forgetQueue = 1 << 13

func newForgetter() *forgetter { return &forgetter{tokens: make(chan device.Token, forgetQueue)} }

// forget lets the kernel forget a DMB and its bell soon. It never blocks.
func (f *forgetter) forget(t device.Token) {
	select {
	case f.tokens <- t:
	default:
	}
}

// run works until the tree is no longer mounted. That the kernel has forgotten a name already is no error here, nor that the
// mount has gone.
func (f *forgetter) run(done <-chan struct{}) {
	for {
		select {
		case t := <-f.tokens:
			for _, dir := range []*gofs.Inode{f.dmbs, f.bells} {
				if name := t.String(); dir.GetChild(name) != nil {
					dir.NotifyEntry(name)
				}
			}
		case <-done:
			return
		}
	}
}
