// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"sync/atomic"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
)

// A forgetter tells the kernel which names have gone. The kernel keeps a name and its inode after the last close until it is
// short of memory itself, and the daemon keeps a node for each until the kernel forgets it: 0.5 KiB here and over 1 KiB there
// for every DMB and every process that ever was.
//
// It works in a goroutine of its own, since the kernel takes the directory's lock for it and whoever holds that may be waiting
// for the daemon. And it works some time after a handle was closed, since a process's name goes with its exit, which comes later.
type forgetter struct {
	dirs []forgetful
	due  atomic.Bool // a handle was closed since the last round
}

// forgetful is a directory whose names come and go.
type forgetful struct {
	dir  *gofs.Inode
	gone func(name string) bool
}

const forgetEvery = 2 * time.Second

// watch adds a directory. It is called before run.
func (f *forgetter) watch(dir *gofs.Inode, gone func(name string) bool) {
	f.dirs = append(f.dirs, forgetful{dir, gone})
}

// soon says that there may be names to forget.
func (f *forgetter) soon() { f.due.Store(true) }

// run works until the tree is no longer mounted.
func (f *forgetter) run(done <-chan struct{}) {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	again := false // once more: what was closed just before a round may go just after it
	for {
		select {
		case <-tick.C:
		case <-done:
			return
		}
		due := f.due.Swap(false)
		if due || again {
			f.round()
		}
		again = due
	}
}

// round goes through what the kernel has of each directory. That it has forgotten a name already is no error here.
func (f *forgetter) round() {
	for _, d := range f.dirs {
		for name := range d.dir.Children() {
			if d.gone(name) {
				d.dir.NotifyEntry(name)
			}
		}
	}
}
