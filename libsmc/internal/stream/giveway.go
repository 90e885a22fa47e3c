// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"runtime"
	"time"

	"github.com/ismfs/ismfs/dmb"
)

// Where both processes are bound to one CPU and many connections are busy, the sleep is most of what a message costs: an
// announcement, a bit, a channel. While news come each time that the peer has had the CPU, the sides give way instead: each lets
// the other goroutines run, and looks when it is its turn. One of them is the dispatcher, which gives the CPU away once in each
// lap. Nobody is asleep, so the peer signals nobody, and answers all at once.
//
// A goroutine that gives way is behind all that can run. In a program that has others, which never rest, that can take longer than
// to sleep and to be woken: so the dispatcher compares.

const (
	// mostLaps is for how many laps a side gives way before it sleeps, and the dispatcher conducts in vain.
	mostLaps = 4

	// paceLaps is in how many laps a pace is taken.
	paceLaps = 16

	// muchSlower is by what factor giving way has to be slower than sleeping to be left.
	muchSlower = 4
)

// giveWay lets the others run until the side has news, and reports whether it has.
func (c *Conn) giveWay(s dmb.Side) bool {
	p := c.link.Pages
	if !p.giveWay.Load() {
		return false
	}
	learned := &c.end(s).giving
	laps := learned.next(mostLaps)
	if laps == 0 {
		return false
	}
	p.enter()
	defer p.exit()
	for lap := range laps {
		runtime.Gosched()
		if c.hasNews(s) {
			p.found.Add(1)
			learned.met(lap, mostLaps)
			return true
		}
	}
	learned.missed()
	return false
}

// turn lets the other goroutines run. If it pays to give way the dispatcher conducts.
func (p *Pages) turn() {
	one := p.relation() == sameCPU
	if p.oneCPU.Load() != one {
		p.oneCPU.Store(one)
		p.asleep = pace{}
	}
	if !one {
		p.period.Store(clock() >> periodShift)
		runtime.Gosched()
		return
	}
	p.letRun(&p.asleep)
	if p.asleep.laps >= paceLaps && !p.blocking.Load() && p.conducting.next(1) > 0 {
		p.conduct()
	}
}

// conduct gives the CPU to the peer, and then to the sides, as long as that pays.
func (p *Pages) conduct() {
	p.giveWay.Store(true)
	var awake pace
	for vain := 0; vain < mostLaps && p.wanted() && host.idle(clock()); vain++ {
		if p.giveCPU() {
			break
		}
		told := p.scan()
		if p.letRun(&awake) || told {
			vain = -1
		}
		if awake.laps == paceLaps {
			if awake.slower(p.asleep) {
				p.conducting.missed()
				break
			}
			p.conducting.met(0, 1)
			awake = pace{}
		}
	}
	p.giveWay.Store(false)
	p.asleep = pace{}
}

// giveCPU gives the CPU away, says how long this process had it, and reports whether a third program had it then.
func (p *Pages) giveCPU() (stolen bool) {
	began := clock()
	p.own.SetSlice(time.Duration(began - p.resumed))
	yield()
	p.resume()
	return wasStolen(began, p.resumed, int64(p.peer.Slice()))
}

// resume says that this process has the CPU.
func (p *Pages) resume() {
	p.resumed = clock()
	p.own.SetSlice(dmb.Working)
}

// letRun lets the other goroutines run, adds to a pace, and reports whether any found news.
func (p *Pages) letRun(to *pace) bool {
	began, before := clock(), p.found.Load()
	runtime.Gosched()
	now, found := clock(), p.found.Load()-before
	p.period.Store(now >> periodShift)
	to.laps++
	to.time += now - began
	to.news += found
	return found > 0
}

// A pace is how long news take this process.
type pace struct {
	laps       int
	time, news int64
}

// slower reports whether news take much longer than at another pace.
func (a pace) slower(b pace) bool {
	return float64(a.time)*float64(max(b.news, 1)) > muchSlower*float64(b.time)*float64(max(a.news, 1))
}
