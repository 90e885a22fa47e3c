// SPDX-License-Identifier: Apache-2.0

package stream

import (
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
	strategy, p := c.Strategy(), c.link.Pages
	switch {
	case strategy == Busy:
		c.busily(s)
		return
	case p != nil && p.crowded(c, strategy):
		if !c.giveWay(s) {
			c.sleepOnPage(s)
		}
		return
	case strategy == Adaptive && c.spin(s, clock()):
		return
	}
	began := clock()
	c.sleep(s)
	c.end(s).watching.slept = time.Duration(clock() - began)
}

func (c *Conn) sleep(s dmb.Side) {
	if !c.link.Own.Separated() && takeThread() { // a peer that writes by system call cannot wake a futex
		woken := c.sleepOnFutex(s)
		giveThread(dmb.OnFutex)
		if woken {
			return
		}
	}
	if c.link.Pages != nil {
		c.sleepOnPage(s)
		return
	}
	c.sleepOnBell(s)
}

// takeThread reports whether one more thread may be spent on a sleep on a futex, which it then counts.
func takeThread() bool {
	if futexSleepers.Add(1) <= futexThreads*host.procs(clock()) {
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
	if c.hasNews(s) {       // 4
		c.announce(s, dmb.Awake) // 6
	} else {
		<-e.told // 5
	}
	if c.link.Pages.oneCPU.Load() {
		c.link.Pages.found.Add(1)
	}
	c.link.Pages.exit()
}

// tellOnPage tells a side if it sleeps on the page, or is about to: it noted that before it announced it.
func (e *end) tellOnPage() {
	if dmb.Wait(e.noted.Load()) == dmb.OnPage {
		e.tell()
	}
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
	if e := c.end(s); e.noted.Load() != uint32(how) {
		e.noted.Store(uint32(how))
	}
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

// space returns the free bytes of the peer's ring as the last accepted word says. Under wmu.
func (c *Conn) space() uint32 {
	cons, _, _ := smc.ParseConsumerWord(c.said.Load())
	return c.txLen - cons.Diff(c.tx.prod, c.txLen)
}
