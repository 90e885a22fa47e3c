// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
)

const (
	// futexTime is how long a sleep on the futex lasts before it goes on on the bell. A sleep on the futex holds a thread
	// and is answered in a third of the time.
	futexTime = 50 * time.Millisecond

	// futexThreads is how many goroutines of the process sleep on a futex at once, for each CPU that Go uses.
	futexThreads = 4
)

// futexSleepers counts the goroutines that sleep on a futex.
var futexSleepers atomic.Int32

// hasNews reports whether a side has reason not to sleep. It is the second look of the protocol, and may say yes where the
// caller then finds nothing; it must never say no where there is something.
func (c *Conn) hasNews(s dmb.Side) bool {
	e := c.end(s)
	if e.stop.Load() || c.refused(e) != nil || c.link.Own.Consumer() != c.said.Load() || c.holdsBack() {
		return true
	}
	if s == dmb.Reader {
		return c.link.Own.Producer() != c.rx.word
	}
	return c.space() > 0 // the reader may have accepted the word that brought it
}

// wait sleeps until a side has news, or for no reason. Under rmu or wmu: the side's. The caller has just looked, and looks again.
func (c *Conn) wait(s dmb.Side) {
	if c.holdsBack() {
		c.publishConsumer()
	}
	if c.spin(s) {
		return
	}
	if p := c.link.Pages; p != nil {
		if c.sleeping.Add(1) == 1 {
			p.asleep.Add(1)
		}
		defer c.awake(p)
		if p.asleep.Load() > 1 {
			c.sleepOnPage(s)
			return
		}
	}
	if !c.link.Own.Separated() && takeThread() { // a peer that writes by system call cannot wake a futex
		woken := c.sleepOnFutex(s)
		giveThread(dmb.OnFutex)
		if woken {
			return
		}
	}
	c.sleepOnBell(s)
}

// awake ends a sleep of one side.
func (c *Conn) awake(p *Pages) {
	if c.sleeping.Add(-1) == 0 {
		p.asleep.Add(-1)
	}
}

// takeThread reports whether one more thread may be spent on a sleep on a futex, which it then counts.
func takeThread() bool {
	if futexSleepers.Add(1) <= futexThreads*spinning.procs() {
		return true
	}
	futexSleepers.Add(-1)
	return false
}

// giveThread ends a sleep for which takeThread was asked.
func giveThread(how dmb.Wait) {
	if how == dmb.OnFutex {
		futexSleepers.Add(-1)
	}
}

// sleepOnPage takes the steps of Pages' comment.
func (c *Conn) sleepOnPage(s dmb.Side) {
	e := c.end(s)
	select { // 1
	case <-e.told:
	default:
	}
	c.link.Pages.enter()    // 2
	c.setOut(s, dmb.OnPage) // 3
	if !c.hasNews(s) {      // 4
		<-e.told // 5
	}
	c.setOut(s, dmb.Awake) // 6
	c.link.Pages.exit()
}

// tell wakes a side that sleeps on the page.
func (e *end) tell() {
	select {
	case e.told <- struct{}{}:
	default:
	}
}

// The steps of the others are those of the package comment.

func (c *Conn) sleepOnFutex(s dmb.Side) (woken bool) {
	seq := c.link.Own.Sequence() // 1
	c.setOut(s, dmb.OnFutex)     // 2
	timedOut := false            //
	if !c.hasNews(s) {           // 3
		timedOut = c.link.Own.WaitSequence(seq, futexTime) // 4
	}
	c.setOut(s, dmb.Awake) // 5
	return !timedOut
}

func (c *Conn) sleepOnBell(s dmb.Side) {
	leads := c.bell.arm()   // 1
	c.setOut(s, dmb.OnBell) // 2
	if !c.hasNews(s) {      // 3
		if err := c.bell.sleep(leads); err != nil { // 4
			c.fail(err)
		}
	}
	c.setOut(s, dmb.Awake) // 5
	c.bell.disarm(leads)
}

// setOut notes how a side sleeps for events of the own side, and announces it to the peer.
func (c *Conn) setOut(s dmb.Side, how dmb.Wait) {
	c.end(s).noted.Store(uint32(how))
	c.announce(s, how)
}

// rouse wakes a side because of an event of its own side, which the caller has made visible.
func (c *Conn) rouse(s dmb.Side) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rouseLocked(s)
}

func (c *Conn) rouseLocked(s dmb.Side) {
	e := c.end(s)
	e.wakeTurnsLocked()
	if c.freed {
		return
	}
	switch dmb.Wait(e.noted.Load()) {
	case dmb.OnFutex:
		c.link.Own.Wake()
	case dmb.OnBell:
		c.link.OwnBell.Interrupt()
	case dmb.OnPage:
		e.tell()
	}
}

// Rounds of spinning. Each looks once and then pauses; all of them together take some 10 µs, less than a sleep and a wake-up
// cost. Doubled when spinning met the news and halved when not, so a side that waits long soon spins little.
const (
	leastSpins = 4
	firstSpins = 32
	mostSpins  = 64

	pausesPerSpin = 4
)

// spin looks for news for a moment without sleeping.
func (c *Conn) spin(s dmb.Side) bool {
	if !spinning.allowed() {
		return false
	}
	e := c.end(s)
	for range e.spins {
		pause(pausesPerSpin)
		if c.hasNews(s) {
			e.spins = min(2*e.spins, mostSpins)
			return true
		}
	}
	e.spins = max(e.spins/2, leastSpins)
	return false
}

// spinning is what this process knows of its CPUs.
var spinning cpus

type cpus struct {
	until  atomic.Int64 // when to ask again, in nanoseconds since start
	usable atomic.Int32 // CPUs that this process may use at once
	asked  atomic.Bool  // whether the quota was looked up
	quota  atomic.Bool  // CPU time is rationed: what is spun away is missing later
}

var start = time.Now()

const askAgain = int64(time.Second)

// procs returns how many CPUs the process uses at once: GOMAXPROCS, or fewer if it is pinned.
func (p *cpus) procs() int32 {
	now := int64(time.Since(start))
	if now < p.until.Load() {
		return p.usable.Load()
	}
	p.until.Store(now + askAgain)
	n := runtime.GOMAXPROCS(0)
	if a := affinity(); a > 0 {
		n = min(n, a)
	}
	p.usable.Store(int32(n))
	if !p.asked.Swap(true) {
		p.quota.Store(hasCPUQuota())
	}
	return int32(n)
}

// allowed reports whether spinning can pay: the peer may run at the same time, and CPU time is not rationed.
func (p *cpus) allowed() bool { return p.procs() > 1 && !p.quota.Load() }

// space returns the free bytes of the peer's ring as the last accepted word says. Under wmu.
func (c *Conn) space() uint32 {
	cons, _, _ := smc.ParseConsumerWord(c.said.Load())
	return c.txLen - cons.Diff(c.tx.prod, c.txLen)
}
