// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ismfs/ismfs/libsmc/internal/stream"
	"github.com/ismfs/ismfs/tree"
)

// lookAgain is how long an unsuccessful search counts. The mount watcher cuts it short.
const lookAgain = time.Second

// lookPause is the time from one look at the mount point to the next: a process without listeners and connections watches no mounts.
const lookPause = 10 * time.Millisecond

// finder holds the device that this process uses.
var finder struct {
	mu     sync.Mutex
	device *Device
	err    error     // why there is none
	until  time.Time // for how long that counts
	looked time.Time // when it was last seen which file system is at the device's mount point

	left []*stream.Process // on devices whose daemon has gone: their connections may live on

	changed map[*func(*Device)]struct{} // who wants to hear of a new device
}

// watching has a lock of its own: the finder's is held while the daemon is asked, and no connection ends later because that is
// slow.
var watching struct {
	mu    sync.Mutex
	holds int    // reasons to watch the mounts: who wants to hear of a new device, and connections
	stop  func() // ends watching
}

// Current returns the device that this process uses, and looks for one if there is none, or if the daemon of the last one
// has gone, or another device is mounted in its place. Its errors are those of tree.Find and of opening a procs block.
func Current() (*Device, error) {
	finder.mu.Lock()
	defer finder.mu.Unlock()
	if d := finder.device; d != nil && !d.dead.Load() {
		if now := time.Now(); now.Sub(finder.looked) >= lookPause {
			finder.looked = now
			d.checkMount()
		}
		if !d.dead.Load() {
			return d, nil
		}
	}
	if finder.err != nil && time.Now().Before(finder.until) {
		return nil, finder.err
	}
	return lookLocked()
}

// lookLocked looks for a device. To a new one the connections move that live on from devices whose daemon has gone.
func lookLocked() (*Device, error) {
	t, err := tree.Find("")
	var d *Device
	if err == nil {
		d, err = open(t)
	}
	if err != nil {
		finder.err, finder.until = err, time.Now().Add(lookAgain)
		if errors.Is(err, tree.ErrOff) || errors.Is(err, tree.ErrUnsupported) {
			finder.until = time.Now().Add(365 * 24 * time.Hour)
		}
		return nil, err
	}
	if old := finder.device; old != nil {
		finder.left = append(finder.left, old.Process)
	}
	finder.device, finder.err = d, nil
	finder.left = slices.DeleteFunc(finder.left, func(p *stream.Process) bool { return !p.MoveTo(d.block) })
	for f := range finder.changed {
		go (*f)(d)
	}
	return d, nil
}

// OnChange calls f, in a goroutine of its own, whenever this process gets another device, until stop is called. Mounts are
// watched meanwhile, so that a device is found when it comes.
func OnChange(f func(*Device)) (stop func()) {
	finder.mu.Lock()
	defer finder.mu.Unlock()
	if finder.changed == nil {
		finder.changed = make(map[*func(*Device)]struct{})
	}
	key := &f
	finder.changed[key] = struct{}{}
	hold()
	return sync.OnceFunc(func() {
		finder.mu.Lock()
		defer finder.mu.Unlock()
		delete(finder.changed, key)
		drop()
	})
}

// hold has the mounts watched until drop: a connection that outlives its daemon moves to the next device.
func hold() {
	watching.mu.Lock()
	defer watching.mu.Unlock()
	if watching.holds++; watching.holds == 1 {
		watching.stop = tree.WatchMounts(mountsChanged)
	}
}

func drop() {
	watching.mu.Lock()
	defer watching.mu.Unlock()
	if watching.holds--; watching.holds == 0 {
		go watching.stop() // it waits for mountsChanged, which may be waiting for the finder's lock
	}
}

// mountsChanged looks whether the device has gone, and whether there is a new one.
func mountsChanged() {
	finder.mu.Lock()
	defer finder.mu.Unlock()
	if d := finder.device; d != nil && d.isMounted() {
		return
	}
	lookLocked()
}

// CloseIdle ends the link groups that have no connections.
func CloseIdle() {
	finder.mu.Lock()
	d := finder.device
	finder.mu.Unlock()
	if d != nil {
		d.CloseIdle()
	}
}
