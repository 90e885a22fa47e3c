// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismfs/ismfs/dmb"
)

// bind makes connections take both ends for bound to one CPU that nobody else wants, whatever else runs.
func bind(t *testing.T) {
	host.procs(clock())
	until, place := host.until.Swap(math.MaxInt64), host.place.Swap(1)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				host.busyUntil.Store(0)
			}
		}
	}()
	t.Cleanup(func() { close(done); host.until.Store(until); host.place.Store(place) })
}

// TestGiveWay has connections that are busy, one after another and at once, until sides give way; in between each rests, so that
// they sleep again. A lost wake-up ends in the deadline, as does what never gives way.
func TestGiveWay(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		bind(t)
		g := d.newGroup(t)
		var gave atomic.Int32
		g.talk(t, 8, func(c1, _ *Conn) {
			c1.SetDeadline(time.Now().Add(patience))
			b := make([]byte, 1)
			for gave.Load() < 200 {
				if _, err := c1.Write(b); err != nil {
					t.Error("nobody gives way: ", err)
					return
				}
				if _, err := c1.Read(b); err != nil {
					t.Error("nobody gives way: ", err)
					return
				}
				if c1.reading.giving.gap > 0 && g.pages[0].giveWay.Load() { // of this goroutine's own reads
					gave.Add(1)
					c1.SetDeadline(time.Now().Add(patience))
					dawdle()
				}
			}
		})
	})
}

// Who gives way and is to stop does, for the reason that a sleeper would have.
func TestGiveWayEnds(t *testing.T) {
	d := daemons[0].started(t)
	for name, end := range map[string]func(c *Conn){
		"deadline": func(c *Conn) { c.SetReadDeadline(time.Unix(1, 0)) },
		"closed":   func(c *Conn) { c.closed.Store(true) },
		"aborted":  func(c *Conn) { c.fail(errBytes) },
	} {
		t.Run(name, func(t *testing.T) {
			g := d.newGroup(t)
			g.pages[0].giveWay.Store(true)
			c1, c2, err := g.pair(ringSize)
			if err != nil {
				t.Fatal(err)
			}
			defer endPair(t, c1, c2)
			end(c1)
			defer c1.closed.Store(false)
			if !c1.giveWay(dmb.Reader) || c1.reading.giving.rounds != mostLaps {
				t.Error("it goes on waiting")
			}
			if n := g.pages[0].sleepers.Load(); n != 0 {
				t.Errorf("%d are counted still", n)
			}
		})
	}
}

// Sides whose news do not come learn to sleep.
func TestGiveWayInVain(t *testing.T) {
	g := daemons[0].started(t).newGroup(t)
	g.pages[0].giveWay.Store(true)
	c1, c2, err := g.pair(ringSize)
	if err != nil {
		t.Fatal(err)
	}
	defer endPair(t, c1, c2)
	for range mostLaps {
		if c1.giveWay(dmb.Reader) {
			t.Fatal("news of nothing")
		}
	}
	if c1.reading.giving.rounds != 0 {
		t.Error("it goes on looking")
	}
}

func TestPace(t *testing.T) {
	asleep := pace{laps: paceLaps, time: 1000, news: 10}
	for _, awake := range []struct {
		pace
		slower bool
	}{
		{pace{time: 100, news: 1}, false},
		{pace{time: 1000, news: 3}, false},
		{pace{time: 1000, news: 2}, true},
		{pace{time: 401, news: 0}, true},
		{pace{}, false},
	} {
		if got := awake.pace.slower(asleep); got != awake.slower {
			t.Errorf("%+v: %v", awake.pace, got)
		}
	}
}

// The time that the peer had the CPU is not stolen, and none is while it has not given it away.
func TestStolen(t *testing.T) {
	taken := host.taken.Load()
	defer host.taken.Store(taken)
	for _, a := range []struct {
		away, slice int64
		stolen      bool
	}{
		{stolenTime, 0, false}, {stolenTime + 1, 0, true}, {stolenTime + 100, 100, false}, {stolenTime + 101, 100, true},
		{int64(time.Second), int64(dmb.Working), false},
	} {
		host.taken.Store(0)
		if got := wasStolen(0, a.away, a.slice); got != a.stolen || (host.taken.Load() != 0) != got {
			t.Errorf("away for %d, the peer had %d: %v", a.away, a.slice, got)
		}
	}
}
