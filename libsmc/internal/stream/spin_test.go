// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"testing"
	"time"
)

func TestSpinnerLearns(t *testing.T) {
	var s spinner
	if n := s.next(32); n != 32 {
		t.Fatalf("the first time %d rounds", n)
	}
	for s.rounds > 0 {
		s.missed()
	}
	waits := 0
	for s.next(32) == 0 {
		waits++
	}
	if waits != firstGap {
		t.Errorf("%d sleeps before a trial, want %d", waits, firstGap)
	}
	s.missed()
	if s.gap <= firstGap*2-1 {
		t.Errorf("after a trial in vain the next gap is %d", s.gap)
	}
	s.met(40, 32) // a trial may be longer
	if n := s.next(32); n != 32 {
		t.Errorf("after a trial that met news %d rounds", n)
	}
	for range 100 {
		s.met(31, 32) // late every time: as dear as sleeping
	}
	if n := s.next(32); n > 1 {
		t.Errorf("news that are always late are waited for %d rounds", n)
	}
}

// TestTrials has sides that have found nothing for long try anew.
func TestTrials(t *testing.T) {
	var w watcher
	var s spinner
	looks := 0
	nothing := func() bool { looks++; return false }
	for what, look := range map[string]func(){
		"watching": func() { w.watch(nothing, false) },
		"yielding": func() { s.yield(func() bool { return false }, nothing) },
	} {
		for range 10 { // mostWatches halved
			look()
		}
		looks = 0
		for range 4 * firstGap {
			look()
		}
		if looks == 0 {
			t.Errorf("no trial of %s in %d sleeps", what, 4*firstGap)
		}
	}
}

// TestWatchersMeet has two sides that both sleep play ping-pong, where a wake-up takes longer than they watch.
func TestWatchersMeet(t *testing.T) {
	for _, wakeUp := range []time.Duration{30 * time.Microsecond, 60 * time.Microsecond, 95 * time.Microsecond} {
		var sides [2]watcher
		for i := range sides {
			for sides[i].next(false) > 0 {
				sides[i].missed() // the peer was busy with something else
			}
		}
		for range 7 {
			sides[0].next(false) // so that the two try at different times
		}
		awake := false // the other side was, when this one wrote
		sleeping := 0
		for exchange := range 10000 {
			me := &sides[exchange%2]
			took := 200 * time.Nanosecond // until the answer is there
			if !awake {
				took += wakeUp
			}
			round := int(took / watchTime)
			rounds := me.next(awake)
			if awake = round < rounds; awake {
				me.met(round)
				continue
			}
			if rounds > 0 {
				me.missed()
			}
			me.slept = took + wakeUp
			sleeping++
		}
		if sleeping > 200 {
			t.Errorf("with wake-ups of %v the sides slept %d times of 10,000", wakeUp, sleeping)
		}
	}
}
