// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"sync"

	"github.com/ismfs/ismfs/dmb"
)

// A doorbell lets both sides of a connection sleep on its one bell. Who reads the bell swallows what it rang for the other as
// well, so one of them, the leader, listens, and tells the other when it has heard something and when it goes. The other, the
// follower, sleeps on told.
type doorbell struct {
	bell *dmb.Bell
	told chan struct{} // holds one

	mu  sync.Mutex
	led bool
}

func newDoorbell(b *dmb.Bell) doorbell { return doorbell{bell: b, told: make(chan struct{}, 1)} }

// arm makes the caller the leader, or the follower if there is a leader, and forgets what rang before: it is before the
// second look, which will see what that was about. What the leader finds may be the follower's.
func (d *doorbell) arm() (leads bool) {
	d.mu.Lock()
	leads = !d.led
	d.led = true
	if !leads {
		select {
		case <-d.told:
		default:
		}
	}
	d.mu.Unlock()
	if leads && d.bell.Drain() {
		d.tell()
	}
	return leads
}

// sleep waits for the bell, or for the leader's word.
func (d *doorbell) sleep(leads bool) error {
	if leads {
		return d.bell.Wait()
	}
	<-d.told
	return nil
}

// disarm ends what arm began. The follower looks again, for what the leader has heard, and may then lead.
func (d *doorbell) disarm(leads bool) {
	if !leads {
		return
	}
	d.mu.Lock()
	d.led = false
	d.mu.Unlock()
	d.tell()
}

func (d *doorbell) tell() {
	select {
	case d.told <- struct{}{}:
	default:
	}
}
