// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"runtime"
	"time"

	"github.com/ismfs/ismfs/dmb"
)

// Before a side sleeps it looks for news for a while. Where the peer runs on another CPU it watches the header, with pauses: what
// the peer writes is seen after a few hundred nanoseconds, where a sleep and a wake-up take 5 to 40 µs. Where both share
// a CPU it gives the CPU away instead (sched_yield), which costs half of a sleep and a wake-up, and lets the peer work
// until it is through. Where that is not known it does one, then the other.
//
// A spinner learns for each whether it pays.
type spinner struct {
	rounds int // before the next sleep; 0: none
	skip   int // sleeps until a trial, while there are none
	gap    int // the next skip
}

const (
	firstGap = 16
	mostGap  = 1024
)

// next returns how many rounds to look before the next sleep. Now and then it is a trial: two sides that sleep both
// would never find out else that they need not.
func (s *spinner) next(most int) int {
	switch {
	case s.gap == 0: // the first time
		s.rounds, s.gap = most, firstGap
	case s.rounds == 0 && s.skip > 0:
		s.skip--
		return 0
	case s.rounds == 0:
		return 2 * most // the peer has to wake up first
	}
	return s.rounds
}

// met says that news came in a round. If it came late, time is spent that the sleep and the wake-up would have cost as well: so
// it is not done for long.
func (s *spinner) met(round, most int) {
	s.gap = firstGap
	if s.rounds == 0 || round <= most/2 {
		s.rounds = most
		return
	}
	s.rounds -= (s.rounds + 7) / 8
}

// missed says that no news came.
func (s *spinner) missed() {
	if s.rounds /= 2; s.rounds == 0 {
		s.skip = s.gap
		s.gap = min(2*s.gap, mostGap)
	}
}

// A watcher is the spinner of a side that watches. What it looks for may come only after two wake-ups have been waited for: the peer's, and
// its own. Where both sides sleep each waits as long as the other takes to wake up, which can be longer than watching ever lasts. So a trial lasts
// as long as the last sleep did; and the peer, which finds this side awake for once, watches as well.
type watcher struct {
	spinner
	slept time.Duration // the last sleep

	hint   spinner // whether it pays to watch since the peer was awake
	hinted bool    // that is why there are rounds this time
	found  bool    // the last trial lasted until the peer was awake: what it says next may come at once
	extra  bool    // that, or the hint, is why there are rounds
}

// next returns how many rounds to watch before the next sleep. awake says that the peer needed no wake-up for what it was told last.
func (w *watcher) next(awake bool) (rounds int) {
	found := w.found
	w.hinted, w.found, w.extra = false, false, false
	isTrial := w.rounds == 0 && w.gap > 0
	rounds = w.spinner.next(mostWatches)
	if rounds > 0 && isTrial && w.slept < longestTrial {
		return max(rounds, int(w.slept/watchTime))
	}
	if rounds == 0 {
		w.hinted = awake && w.hint.next(1) > 0
		w.extra = w.hinted || found
	}
	if w.extra {
		return mostWatches
	}
	return rounds
}

// met says that news came in a round.
func (w *watcher) met(round int) {
	if round >= mostWatches {
		w.found = true
		w.spinner.missed()
		return
	}
	if w.hinted {
		w.hint.met(0, 1)
	}
	w.spinner.met(round, mostWatches)
}

func (w *watcher) missed() {
	if w.hinted {
		w.hint.missed()
	}
	if !w.extra {
		w.spinner.missed()
	}
}

const (
	// mostWatches rounds of watching take some 40 µs, as much as it takes to wake a CPU that sleeps and to be woken.
	mostWatches = 32

	// longestTrial is the longest sleep that a trial tries to replace.
	longestTrial = 200 * time.Microsecond

	// watchTime is how long a round of watching takes at least.
	watchTime = 1250 * time.Nanosecond

	// mostYields is how often the CPU is given away before a sleep. Once is for the peer, the rest for the kernel to take turns.
	mostYields = 4

	// stolenTime is how long the CPU is gone, while a side looks for news, if a third program has it. If it was the peer, what a
	// sleep would have cost more is little beside it.
	stolenTime = int64(500 * time.Microsecond)
)

// spin looks for news for a while without sleeping.
func (c *Conn) spin(s dmb.Side, now int64) bool {
	if !host.idle(now) {
		return false
	}
	e := c.end(s)
	news := func() bool { return c.hasNews(s) }
	where := c.link.Pages.relation()
	return where != sameCPU && e.watching.watch(news, s == dmb.Reader && c.peerAwake.Load()) || where != apart && e.yielding.yield(giveCPU, news)
}

// busily looks for news until there is some. Other goroutines and programs get their turn.
func (c *Conn) busily(s dmb.Side) {
	news := func() bool { return c.hasNews(s) }
	for !watchOnce(news) {
		runtime.Gosched()
		host.procs(clock()) // shows where this process runs, also where everybody is busy
		if c.link.Pages.relation() != apart {
			yield()
		}
	}
}

// watch looks again and again.
func (w *watcher) watch(news func() bool, awake bool) bool {
	rounds := w.next(awake)
	if rounds == 0 {
		return false
	}
	began := clock()
	for round := range rounds {
		if watchOnce(news) {
			w.met(round)
			return true
		}
		if host.usable.Load() == 1 {
			runtime.Gosched() // the process has no other CPU
		}
	}
	w.missed()
	wasStolen(began, clock(), int64(rounds)*int64(watchTime))
	return false
}

// pausesPerLook keeps a loop of looks from taking the line away from who writes it.
const pausesPerLook = 4

func watchOnce(news func() bool) bool {
	for began := clock(); clock()-began < int64(watchTime); {
		for range 4 {
			if news() {
				return true
			}
			pause(pausesPerLook)
		}
	}
	return false
}

// giveCPU gives the CPU away, and reports whether a third program had it.
func giveCPU() (stolen bool) {
	began := clock()
	yield()
	return wasStolen(began, clock(), 0)
}

// wasStolen reports whether a third program had the CPU in a time of which a part was this program's, or the peer's.
func wasStolen(began, ended, part int64) bool {
	if ended-began <= stolenTime+part {
		return false
	}
	host.contended(began, ended)
	return true
}

// yield gives the CPU away, and looks.
func (s *spinner) yield(give, news func() bool) bool {
	rounds := s.next(mostYields)
	if rounds == 0 {
		return false
	}
	for round := range rounds {
		stolen := give()
		if news() {
			s.met(round, mostYields)
			return true
		}
		if stolen {
			break
		}
	}
	s.missed()
	return false
}
