// SPDX-License-Identifier: Apache-2.0

//go:build !race

// A model is one goroutine that goes through states: the race detector has nothing to find in it and makes it ten times slower.

package stream

import (
	"fmt"
	"os"
	"testing"
)

// The model of sleeping and waking: all interleavings of the steps that doc.go lists, each atomic, with memory that is
// sequentially consistent. That is what the code has: every word in it is a Go atomic, or written by a system call and
// followed by a fence. Of the machine's weaker orders these would break it, and are excluded by these fences:
//
//	publish; look at the wait state     store then load: the fence of dmb.Attached.Store…
//	announce; look again                store then load: the fence of dmb.Attached.StoreWaiting
//	event; look whether one sleeps      store then load: Go's atomics
//	payload; producer word              store then store: the word's store releases
//
// A side has one or two sleepers, its reader and its writer, which share the signal sequence, the word of the wait state and
// the bell. The peer has a thread that publishes for each, and one that publishes a flag to both. On the sleepers' own side
// something happens (Close, a deadline) that both must hear of, and the device moves the sequence for no reason. Nothing
// times out but, where the model says so, the futex; so a lost wake-up is a state from which no step leads on although
// somebody has not heard of everything.

// A flaw is a wrong protocol, by which the model shows that it can tell.
type flaw string

const (
	none                 flaw = ""
	noSecondLook         flaw = "sleep without looking again"
	announceLate         flaw = "look again, then announce"
	sequenceLate         flaw = "load the sequence after looking again"
	drainLate            flaw = "empty the bell after looking again"
	lookBeforePublishing flaw = "look at the wait state, then publish"
	wakeWithoutCount     flaw = "wake without moving the sequence"
	wakeBeforeCount      flaw = "wake, then move the sequence"
	clearLate            flaw = "move the sequence, clear, wake"
	clearEverything      flaw = "clear the whole wait word, signal one side"
	plainAnnounce        flaw = "announce by load and store instead of compare-and-swap"
	eventUnseen          flaw = "own event: look who sleeps, then say what happened"
	eventWithoutCount    flaw = "own event: wake without moving the sequence"
	noteLate             flaw = "note one's sleep for own events after looking again"
	keepNews             flaw = "the leader keeps what it heard on the bell"
	keepLead             flaw = "the leader goes without telling the follower"
	drainUntold          flaw = "the leader empties the bell and tells nobody"
	followerForgets      flaw = "the follower forgets what it was told after it looked again"
)

// A plan is what a run of the model contains.
type plan struct {
	flaw     flaw
	sleepers int
	items    uint8 // published for each sleeper
	flag     bool  // the peer sets a flag
	events   int   // on the own side
	device   bool  // moves the sequence once
	futex    bool  // sleepers may choose the futex
	bell     bool  // or the bell
	timeout  bool  // a futex sleep may time out; the next one is then on the bell
	idle     bool  // nothing is ever published for the second sleeper: it sleeps for ever
	copied   bool  // dmb_copy 1: an announcement writes both fields, from the sleeper's own memory
}

// Steps of a sleeper.
const (
	look uint8 = iota
	prepare
	drain    // the leader empties the bell
	tellLeft // the leader has found the bell ringing: tell the follower
	note
	announce
	announceStore // flaw plainAnnounce: the second half
	again         // three looks: at the items, the flag, the events
	againFlag
	againEvents
	late // flaws: what was to be done before looking again
	sleepNow
	asleep
	unnote
	unannounce
	giveUpLead
	tellGone
	finished
)

type sleeper struct {
	step    uint8
	how     uint8 // 1 futex, 2 bell
	moved   bool  // the sequence has, since this sleeper loaded it
	leads   bool
	timed   bool  // a futex sleep has timed out
	old     uint8 // flaw plainAnnounce: what was loaded of the other field
	items   uint8 // heard of
	flag    bool
	events  uint8
	noted   uint8 // what own events look at
	told    bool  // the follower's channel
	waiting uint8 // dmb_copy 1: own memory of the announcement
}

// A thread of the peer or of the own side that publishes and wakes.
type waker struct {
	step, done, saw, target uint8
}

type state struct {
	sleepers [2]sleeper
	field    [2]uint8 // the wait state
	items    [2]uint8
	flag     bool
	events   uint8
	bell     bool
	led      bool

	publishers [2]waker
	flagger    waker
	happenings [2]waker
	device     uint8
}

// search visits every state that can be reached and returns how many there are, and the first one found from which nothing
// leads on although it is not over.
func search[S comparable](first S, next func(S) []S, over func(*S) bool) (states int, stuck *S) {
	seen := map[S]struct{}{first: {}}
	todo := []S{first}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		all := next(s)
		if len(all) == 0 && !over(&s) {
			return len(seen), &s
		}
		for _, n := range all {
			if _, ok := seen[n]; !ok {
				seen[n] = struct{}{}
				todo = append(todo, n)
			}
		}
	}
	return len(seen), nil
}

// explore searches for a state in which somebody sleeps for ever.
func explore(p plan) (states int, stuck *state) {
	first := state{}
	if p.sleepers == 1 {
		first.sleepers[1].step = finished
	}
	return search(first, p.next, p.over)
}

func (p plan) over(s *state) bool {
	return s.sleepers[0].step == finished && (p.idle || s.sleepers[1].step == finished)
}

func (p plan) next(s state) (all []state) {
	for i := range p.sleepers {
		all = append(all, p.sleeperSteps(s, i)...)
		if s.publishers[i].done < p.items && !(p.idle && i == 1) {
			all = append(all, p.publish(s, i))
		}
	}
	if p.flag && s.flagger.done == 0 {
		all = append(all, p.setFlag(s))
	}
	for i := range p.events {
		if s.happenings[i].done == 0 {
			all = append(all, p.happen(s, i))
		}
	}
	if p.device && s.device < 2 {
		s.device++
		if s.device == 1 {
			s.count()
		} else {
			s.wakeFutex()
		}
		all = append(all, s)
	}
	return all
}

// count moves the sequence. Of its value only what the sleepers can tell is kept: whether it is still the one they loaded.
func (s *state) count() {
	for i := range s.sleepers {
		if w := &s.sleepers[i]; w.how == 1 && w.step > prepare && w.step < asleep {
			w.moved = true
		}
	}
}

func (s *state) wakeFutex() {
	for i := range s.sleepers {
		if w := &s.sleepers[i]; w.step == asleep && w.how == 1 {
			w.step = unnote
		}
	}
}

// heard reports whether the sleeper has heard of everything that will ever happen.
func (p plan) heard(w *sleeper) bool {
	return w.items == p.items && w.flag == p.flag && w.events == uint8(p.events)
}

// sleeperSteps are the steps of Conn.wait and the loop around it.
func (p plan) sleeperSteps(s state, i int) []state {
	w := &s.sleepers[i]
	switch w.step {
	case look:
		return p.firstLook(s, i)
	case prepare:
		if w.how == 1 {
			w.moved = false
			w.step = note
			break
		}
		w.leads = !s.led
		s.led = true
		w.step = drain
		if w.leads {
			break
		}
		w.told = false
		w.step = note
	case drain:
		w.step = note
		if p.flaw == drainLate {
			break
		}
		if s.bell && p.flaw != drainUntold {
			w.step = tellLeft
		}
		s.bell = false
	case tellLeft:
		s.sleepers[1-i].told = true
		w.step = note
	case note:
		if p.flaw != noteLate {
			w.noted = w.how
		}
		w.step = announce
		switch p.flaw {
		case noSecondLook:
			s.announce(p, i, w.how)
			w.step = sleepNow
		case announceLate:
			w.step = again
		}
	case announce:
		if p.flaw == plainAnnounce {
			w.old = s.field[1-i]
			w.step = announceStore
			break
		}
		s.announce(p, i, w.how)
		w.step = again
	case announceStore:
		s.field[i], s.field[1-i] = w.how, w.old
		w.step = again
	case again:
		w.step = againFlag
		if w.items != s.items[i] {
			w.step = unnote
		}
	case againFlag:
		w.step = againEvents
		if w.flag != s.flag {
			w.step = unnote
		}
	case againEvents:
		w.step = late
		if w.events != s.events {
			w.step = unnote
		}
	case late:
		switch {
		case p.flaw == announceLate:
			s.announce(p, i, w.how)
		case p.flaw == noteLate:
			w.noted = w.how
		case p.flaw == sequenceLate && w.how == 1:
			w.moved = false
		case p.flaw == drainLate && w.leads:
			s.bell = false
		case p.flaw == followerForgets && w.how == 2 && !w.leads:
			w.told = false
		}
		w.step = sleepNow
	case sleepNow:
		w.step = asleep
		if w.how == 1 && w.moved {
			w.step = unnote
		}
	case asleep:
		return p.awakening(s, i)
	case unnote:
		w.noted, w.moved = 0, false
		w.step = unannounce
	case unannounce:
		s.announce(p, i, 0)
		w.step = look
		if w.how == 2 && w.leads {
			w.step = giveUpLead
		} else {
			w.how = 0
		}
	case giveUpLead:
		s.led, w.leads, w.how = false, false, 0
		w.step = tellGone
		if p.flaw == keepLead {
			w.step = look
		}
	case tellGone:
		s.sleepers[1-i].told = true
		w.step = look
	case finished:
		return nil
	}
	return []state{s}
}

func (s *state) announce(p plan, i int, how uint8) {
	s.sleepers[i].waiting = how
	if !p.copied {
		s.field[i] = how
		return
	}
	for j := range s.field {
		s.field[j] = s.sleepers[j].waiting
	}
}

func (p plan) firstLook(s state, i int) (all []state) {
	w := &s.sleepers[i]
	if w.items != s.items[i] || w.flag != s.flag || w.events != s.events {
		w.items, w.flag, w.events = s.items[i], s.flag, s.events
		w.timed = false
		return []state{s}
	}
	if p.heard(w) && !(p.idle && i == 1) {
		w.step = finished
		return []state{s}
	}
	w.step = prepare
	if p.futex && !w.timed {
		w.how = 1
		all = append(all, s)
	}
	if p.bell {
		w.how = 2
		all = append(all, s)
	}
	return all
}

// awakening are the ways out of a sleep that do not need somebody else's step.
func (p plan) awakening(s state, i int) []state {
	w := &s.sleepers[i]
	switch {
	case w.how == 1 && p.timeout:
		w.step, w.timed = unnote, true
	case w.how == 2 && w.leads && s.bell:
		s.bell = false
		w.step = unnote
		if p.flaw == keepNews {
			w.step = unnote
			w.leads = false // goes on without the follower
			s.led = false
		}
	case w.how == 2 && !w.leads && w.told:
		w.told = false
		w.step = unnote
	default:
		return nil
	}
	return []state{s}
}

// publish is Conn.publish… and Conn.signal for one sleeper: steps 0 to 4.
func (p plan) publish(s state, i int) state {
	w := &s.publishers[i]
	if p.flaw == lookBeforePublishing && w.step < 2 {
		if w.step == 0 {
			w.saw = s.field[i]
			w.step = 1
			return s
		}
		s.items[i]++
		w.step = 2
		if w.saw == 0 {
			*w = waker{done: w.done + 1}
		}
		return s
	}
	if w.step == 0 {
		s.items[i]++
		w.step = 1
		return s
	}
	if s.signal(p, w, i) {
		*w = waker{done: w.done + 1}
	}
	return s
}

// setFlag is a flag of the consumer word, which concerns both sleepers.
func (p plan) setFlag(s state) state {
	w := &s.flagger
	if w.step == 0 {
		s.flag = true
		w.step = 1
		return s
	}
	if s.signal(p, w, int(w.target)) {
		w.step = 1
		w.target++
		if int(w.target) == p.sleepers {
			w.done = 1
		}
	}
	return s
}

// signal makes one step of Conn.signal, from step 1 on, and reports whether it was the last one.
func (s *state) signal(p plan, w *waker, i int) (last bool) {
	switch w.step {
	case 1:
		w.saw = s.field[i]
		if w.saw == 0 {
			return true
		}
		w.step = 2
		if p.flaw == clearLate {
			w.step = 5
		}
	case 2:
		if s.field[i] != w.saw {
			return true
		}
		s.field[i] = 0
		if p.flaw == clearEverything {
			s.field = [2]uint8{}
		}
		w.step = 3
	case 3:
		if w.saw == 2 {
			s.bell = true
			return true
		}
		w.step = 4
		switch p.flaw {
		case wakeWithoutCount:
		case wakeBeforeCount:
			s.wakeFutex()
		default:
			s.count()
		}
	case 4:
		if p.flaw == wakeBeforeCount {
			s.count()
			return true
		}
		s.wakeFutex()
		return true
	case 5: // flaw clearLate: count, clear, wake
		if w.saw == 2 {
			s.bell = true
		} else {
			s.count()
		}
		w.step = 6
	case 6:
		if s.field[i] != w.saw {
			return true
		}
		s.field[i] = 0
		w.step = 7
	case 7:
		if w.saw == 1 {
			s.wakeFutex()
		}
		return true
	}
	return false
}

// happen is an event of the own side, and Conn.rouse of each sleeper.
func (p plan) happen(s state, i int) state {
	w := &s.happenings[i]
	switch w.step {
	case 0:
		if p.flaw == eventUnseen {
			w.saw = s.sleepers[w.target].noted
		} else {
			s.events++
		}
		w.step = 1
	case 1:
		if p.flaw == eventUnseen {
			if w.target == 0 {
				s.events++
			}
		} else {
			w.saw = s.sleepers[w.target].noted
		}
		w.step = 2
		if w.saw == 0 {
			p.roused(w)
		}
	case 2:
		if w.saw == 2 {
			s.bell = true
			p.roused(w)
			break
		}
		if p.flaw != eventWithoutCount {
			s.count()
		}
		w.step = 3
	case 3:
		s.wakeFutex()
		p.roused(w)
	}
	return s
}

// roused goes on to the next sleeper.
func (p plan) roused(w *waker) {
	w.target++
	w.step = 1
	if p.flaw == eventUnseen {
		w.step = 0
	}
	if int(w.target) == p.sleepers {
		w.done = 1
	}
}

// modelRun is a run of a model.
type modelRun[P any] struct {
	name string
	plan P
}

// plans are the runs that together contain everything, the smallest first. One run with it all would have too many states.
func plans() []modelRun[plan] {
	return []modelRun[plan]{
		{"two sleepers, flag, bell", plan{sleepers: 2, flag: true, bell: true}},
		{"two sleepers, flag, futex", plan{sleepers: 2, flag: true, device: true, futex: true}},
		{"two sleepers, event, either", plan{sleepers: 2, events: 1, futex: true, bell: true}},
		{"two sleepers, one idle, copied", plan{sleepers: 2, items: 2, bell: true, idle: true, copied: true}},
		{"one sleeper, futex timing out", plan{sleepers: 1, items: 2, events: 1, futex: true, bell: true, timeout: true}},
		{"two sleepers, one idle", plan{sleepers: 2, items: 2, futex: true, bell: true, idle: true}},
		{"one sleeper, either", plan{sleepers: 1, items: 2, events: 1, device: true, futex: true, bell: true}},
		{"one sleeper, bell", plan{sleepers: 1, items: 2, flag: true, events: 1, bell: true}},
		{"two sleepers, either", plan{sleepers: 2, items: 1, futex: true, bell: true, timeout: true}},
		{"two sleepers, futex", plan{sleepers: 2, items: 2, futex: true}},
		{"one sleeper, futex", plan{sleepers: 1, items: 2, flag: true, events: 1, device: true, futex: true}},
		{"two sleepers, one idle, event", plan{sleepers: 2, items: 1, events: 1, bell: true, idle: true}},
		{"two sleepers, event, two of them", plan{sleepers: 2, events: 2, bell: true}},
		{"two sleepers, bell", plan{sleepers: 2, items: 2, bell: true}},
		{"two sleepers, bell, copied", plan{sleepers: 2, items: 2, bell: true, copied: true}},
	}
}

// longPlans take minutes and gigabytes each.
func longPlans() []modelRun[plan] {
	return []modelRun[plan]{
		{"one sleeper, all", plan{sleepers: 1, items: 2, flag: true, events: 2, device: true, futex: true, bell: true, timeout: true}},
		{"two sleepers, all, futex", plan{sleepers: 2, items: 1, flag: true, events: 1, futex: true}},
		{"two sleepers, flag, items", plan{sleepers: 2, items: 1, flag: true, bell: true}},
		{"two sleepers, event, items", plan{sleepers: 2, items: 1, events: 1, bell: true}},
		{"two sleepers, copied, event", plan{sleepers: 2, items: 1, events: 1, bell: true, copied: true}},
		{"two sleepers, copied, flag", plan{sleepers: 2, items: 1, flag: true, bell: true, copied: true}},
		{"two sleepers, event, items, or", plan{sleepers: 2, items: 1, events: 1, futex: true, bell: true}},
	}
}

func TestModelLosesNoWakeUp(t *testing.T) {
	all := plans()
	if os.Getenv("ISMFS_SOAK") != "" {
		all = append(all, longPlans()...)
	}
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			states, stuck := explore(p.plan)
			if stuck != nil {
				t.Fatalf("a wake-up is lost: %+v", *stuck)
			}
			t.Logf("%d states", states)
		})
	}
}

// TestModelFindsFlaws shows that the model can fail: each wrong protocol loses a wake-up in one of the runs.
func TestModelFindsFlaws(t *testing.T) {
	for _, f := range []flaw{
		noSecondLook, announceLate, sequenceLate, drainLate, lookBeforePublishing, wakeWithoutCount, wakeBeforeCount, clearLate,
		clearEverything, plainAnnounce, eventUnseen, eventWithoutCount, noteLate, keepNews, keepLead, drainUntold, followerForgets,
	} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			if err := f.found(); err != nil {
				t.Error(err)
			}
		})
	}
}

func (f flaw) found() error {
	for _, p := range plans() {
		p.plan.flaw = f
		if _, stuck := explore(p.plan); stuck != nil {
			return nil
		}
	}
	return fmt.Errorf("no run of the model finds: %s", f)
}
