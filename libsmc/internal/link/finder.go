// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"sync"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// lookAgain is how long an unsuccessful search counts. The mount watcher cuts it short.
const lookAgain = time.Second

// finder holds the device that this process uses.
var finder struct {
	mu     sync.Mutex
	device *Device
	err    error     // why there is none
	until  time.Time // for how long that counts

	changed map[*func(*Device)]struct{} // who wants to hear of a new device
	stop    func()                      // ends watching the mounts, for them
}

// Current returns the device that this process uses, and looks for one if there is none, or if the daemon of the last one
// has gone. Its errors are those of tree.Find and of opening a procs block.
func Current() (*Device, error) {
	finder.mu.Lock()
	defer finder.mu.Unlock()
	if d := finder.device; d != nil && !d.dead.Load() {
		return d, nil
	}
	if finder.err != nil && time.Now().Before(finder.until) {
		return nil, finder.err
	}
	return lookLocked()
}

// lookLocked looks for a device. A dead one is let go of once there is a new one: until then its connections, which live on,
// are described there.
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
	finder.device, finder.err = d, nil
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
	if len(finder.changed) == 0 {
		finder.stop = watchMounts(mountsChanged)
	}
	key := &f
	finder.changed[key] = struct{}{}
	return func() {
		finder.mu.Lock()
		defer finder.mu.Unlock()
		if _, ok := finder.changed[key]; !ok {
			return
		}
		delete(finder.changed, key)
		if len(finder.changed) == 0 {
			finder.stop()
		}
	}
}

// mountsChanged looks whether the device has gone, and whether there is a new one.
func mountsChanged() {
	finder.mu.Lock()
	defer finder.mu.Unlock()
	if d := finder.device; d != nil {
		_, err := d.tree.GID()
		d.noted(err)
		if !d.dead.Load() {
			return
		}
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
