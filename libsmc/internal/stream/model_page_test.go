// SPDX-License-Identifier: Apache-2.0

//go:build !race

// A model is one goroutine that goes through states: the race detector has nothing to find in it and makes it ten times slower.

package stream

import (
	"os"
	"testing"
)

// The model of a doorbell page, in the manner of model_test.go: two sleepers (the two of one connection, which have one bit,
// or of two connections), the dispatcher of their process, a publisher for each in the other process, and an event of the own
// side. Each sleeper chooses at every sleep whether it sleeps on the page or on the futex of its own DMB; or it gives way, counted as
// a sleeper, until it looks again.
//
// Besides lost wake-ups it finds a dispatcher that stays on its bell although nobody sleeps on the page any more. On the futex
// it may: it times out.

const (
	noScan         flaw = "the dispatcher scans, then announces"
	scanPlain      flaw = "the dispatcher loads the bits, then clears them"
	pageSeqLate    flaw = "the dispatcher loads the sequence after scanning"
	pageDrainLate  flaw = "the dispatcher empties its bell after scanning"
	exitDrainLate  flaw = "the dispatcher empties its bell after looking whether it is needed"
	exitUnlocked   flaw = "the dispatcher looks whether it is needed, then ends"
	onBellLate     flaw = "the dispatcher looks whether it is needed, then says that it is on its bell"
	leaveSilently  flaw = "the last sleeper leaves without telling the dispatcher"
	tellOne        flaw = "the dispatcher tells one side of a connection"
	bitLate        flaw = "look at the page's wait state, then set the bit"
	pageClearLate  flaw = "move the page's sequence, clear, wake"
	pageNoCount    flaw = "wake the page without moving its sequence"
	pageCountLate  flaw = "wake the page, then move its sequence"
	forgetLate     flaw = "forget what was told after looking again"
	pageNoLook     flaw = "sleep on the page without looking again"
	pageLate       flaw = "look again, then announce the page"
	pageNoteLate   flaw = "note the sleep on the page for own events after looking again"
	pageEventFirst flaw = "own event: look who sleeps on the page, then say what happened"
)

type pagePlan struct {
	flaw    flaw
	items   [2]uint8 // published for each sleeper
	shared  bool     // the sleepers are the two sides of one connection
	own     bool     // sleepers may choose the futex of their own DMB
	event   bool     // on the own side
	gives   bool     // sleepers may give way
	bell    bool     // the dispatcher may sleep on its bell
	timeout bool     // its sleep on the futex may time out
	device  bool     // moves the page's sequence once
}

// Steps of a sleeper on the page or on its own futex.
const (
	pLook uint8 = iota
	pForget
	pEnter
	pStart
	pGive
	pNote
	pAnnounce
	pAgain
	pAgainEvents
	pLate
	pSleep
	pAsleep
	pUnnote
	pUnannounce
	pLeave
	pRing
	pFinished
)

type pageSleeper struct {
	step          uint8
	how           uint8 // 1 the futex of its own DMB, 3 the page, 4 it gives way
	noted, field  uint8
	items, events uint8 // heard of
	moved         bool  // the sequence of its own DMB has, since it was loaded
	told          bool
}

// Steps of the dispatcher.
const (
	dOff uint8 = iota
	dPrepare
	dNeeded
	dCount
	dEnd // flaw exitUnlocked
	dArm
	dScan
	dClear // flaw scanPlain
	dTell
	dSleep
	dAsleep
	dDisarm
	dScanAwake
	dTellAwake
)

type dispatcher struct {
	step   uint8
	how    uint8 // 1 futex, 2 bell
	moved  bool
	got    uint8 // bits taken and not told of yet
	any    bool
	onBell bool
	timed  bool
}

type pageState struct {
	sleepers   [2]pageSleeper
	items      [2]uint8
	events     uint8
	bits, wait uint8
	bell       bool
	running    bool
	asleep     uint8 // sleepers that have entered
	dispatcher dispatcher
	publishers [2]waker
	happening  waker
	device     uint8
}

func (p pagePlan) bit(i int) uint8 {
	if p.shared {
		return 1
	}
	return 1 << i
}

func (p pagePlan) over(s *pageState) bool {
	d := &s.dispatcher
	return s.sleepers[0].step == pFinished && s.sleepers[1].step == pFinished &&
		(d.step == dOff || d.step == dAsleep && d.how == 1)
}

func (p pagePlan) next(s pageState) (all []pageState) {
	for i := range s.sleepers {
		all = append(all, p.sleeper(s, i)...)
		if s.publishers[i].done < p.items[i] {
			all = append(all, p.publish(s, i))
		}
	}
	all = append(all, p.dispatch(s)...)
	if p.event && s.happening.done == 0 {
		all = append(all, p.happen(s))
	}
	if p.device && s.device < 2 {
		s.device++
		if s.device == 1 {
			s.countPage()
		} else {
			s.wakePage()
		}
		all = append(all, s)
	}
	return all
}

func (s *pageState) countPage() { s.dispatcher.moved = true }

func (s *pageState) wakePage() {
	if d := &s.dispatcher; d.step == dAsleep && d.how == 1 {
		d.step = dDisarm
	}
}

func (p pagePlan) sleeper(s pageState, i int) []pageState {
	w := &s.sleepers[i]
	switch w.step {
	case pLook:
		return p.firstLook(s, i)
	case pForget:
		w.told, w.moved = false, false
		w.step = pEnter
	case pEnter:
		w.step = w.entered()
		if w.how != 1 {
			if s.asleep == 0 {
				w.step = pStart
			}
			s.asleep++
		}
	case pStart:
		w.step = w.entered()
		if !s.running {
			s.running = true
			s.dispatcher = dispatcher{step: dScanAwake}
		}
	case pGive:
		w.how = 0
		w.step = pLeave
	case pNote:
		if p.flaw != pageNoteLate {
			w.noted = w.how
		}
		w.step = pAnnounce
		if p.flaw == pageLate {
			w.step = pAgain
		}
	case pAnnounce:
		w.field = w.how
		w.step = pAgain
		if p.flaw == pageNoLook {
			w.step = pSleep
		}
	case pAgain:
		w.step = pAgainEvents
		if w.items != s.items[i] {
			w.step = pUnnote
		}
	case pAgainEvents:
		w.step = pLate
		if w.events != s.events {
			w.step = pUnnote
		}
	case pLate:
		switch p.flaw {
		case pageLate:
			w.field = w.how
		case pageNoteLate:
			w.noted = w.how
		case forgetLate:
			w.told = false
		}
		w.step = pSleep
	case pSleep:
		w.step = pAsleep
		if w.how == 1 && w.moved {
			w.step = pUnnote
		}
	case pAsleep:
		if w.how == 1 || !w.told {
			return nil
		}
		w.told = false
		w.how = 0
		w.step = pLeave // with its note, and perhaps its announcement
	case pUnnote:
		if w.how == 1 {
			w.noted = 0
		}
		w.moved = false
		w.step = pUnannounce
	case pUnannounce:
		w.field = 0
		w.step = pLook
		if w.how == 3 {
			w.step = pLeave
		}
		w.how = 0
	case pLeave:
		s.asleep--
		w.step = pLook
		if s.asleep == 0 && p.flaw != leaveSilently {
			w.step = pRing
		}
	case pRing:
		if s.dispatcher.onBell {
			s.bell = true
		}
		w.step = pLook
	case pFinished:
		return nil
	}
	return []pageState{s}
}

// entered is the step of a sleeper that is counted.
func (w *pageSleeper) entered() uint8 {
	if w.how == 4 {
		return pGive
	}
	return pNote
}

func (p pagePlan) firstLook(s pageState, i int) (all []pageState) {
	w := &s.sleepers[i]
	if w.items != s.items[i] || w.events != s.events {
		w.items, w.events = s.items[i], s.events
		return []pageState{s}
	}
	if w.items == p.items[i] && (w.events == 1) == p.event {
		w.step = pFinished
		return []pageState{s}
	}
	w.step = pForget
	w.how = 3
	all = append(all, s)
	if p.own {
		w.how = 1
		all = append(all, s)
	}
	if p.gives {
		w.how, w.step = 4, pEnter
		all = append(all, s)
	}
	return all
}

func (p pagePlan) dispatch(s pageState) (all []pageState) {
	d := &s.dispatcher
	switch d.step {
	case dOff:
		return nil
	case dPrepare:
		if d.how == 0 { // the choice is a step of its own
			if p.bell && (d.timed || !p.timeout) {
				n := s
				n.dispatcher.how = 2
				all = append(all, n)
			}
			if !d.timed {
				d.how = 1
				all = append(all, s)
			}
			return all
		}
		d.moved = false
		if d.how == 2 && p.flaw != exitDrainLate {
			s.bell = false
		}
		d.step = dNeeded
	case dNeeded:
		d.step = dCount
		d.onBell = d.how == 2 && p.flaw != onBellLate
	case dCount:
		d.step = dArm
		if s.asleep == 0 {
			d.step = dEnd
			if p.flaw != exitUnlocked {
				s.end()
			}
		}
	case dEnd:
		s.end()
	case dArm:
		d.onBell = d.how == 2
		if d.how == 2 && p.flaw == exitDrainLate {
			s.bell = false
		}
		if p.flaw != noScan {
			s.wait = d.how
		}
		d.step = dScan
	case dScan:
		d.got, d.step = s.bits, dTell
		d.any = d.got != 0
		if p.flaw == scanPlain {
			d.step = dClear
			break
		}
		s.bits = 0
	case dClear:
		s.bits = 0
		d.step = dTell
	case dTell, dTellAwake:
		return []pageState{p.tell(s)}
	case dSleep:
		switch {
		case p.flaw == noScan:
			s.wait = d.how
		case p.flaw == pageSeqLate:
			d.moved = false
		case p.flaw == pageDrainLate && d.how == 2:
			s.bell = false
		}
		d.step = dAsleep
		if d.how == 1 && d.moved {
			d.step = dDisarm
		}
	case dAsleep:
		switch {
		case d.how == 1 && p.timeout:
			d.timed = true
		case d.how == 2 && s.bell:
			s.bell, d.timed = false, false
		default:
			return nil
		}
		d.step = dDisarm
	case dDisarm:
		s.wait = 0
		d.how, d.onBell = 0, false
		d.step = dScanAwake
	case dScanAwake:
		d.got, s.bits = s.bits, 0
		d.any = d.got != 0
		d.step = dTellAwake
	}
	return []pageState{s}
}

// end is the dispatcher's.
func (s *pageState) end() {
	s.running = false
	s.dispatcher = dispatcher{}
}

// tell is one step of telling whom the taken bits concern.
func (p pagePlan) tell(s pageState) pageState {
	d := &s.dispatcher
	for i := range s.sleepers {
		one := uint8(1) << i
		if p.shared && d.got == 1 { // both sides, one after the other
			d.got = 0b110
			if p.flaw == tellOne {
				d.got = 0b010
			}
		}
		if p.shared {
			one <<= 1
		}
		if d.got&one != 0 {
			d.got &^= one
			s.sleepers[i].told = s.sleepers[i].told || s.sleepers[i].noted == 3
			return s
		}
	}
	switch {
	case d.step == dTell && d.any:
		d.step = dDisarm
	case d.step == dTell:
		d.step = dSleep
	case d.any:
		d.step = dScanAwake
	default:
		d.step = dPrepare
	}
	d.timed = d.timed && !d.any
	d.any = false
	return s
}

// publish is Conn.publish… and Conn.signal for one sleeper.
func (p pagePlan) publish(s pageState, i int) pageState {
	w := &s.publishers[i]
	over := func() pageState {
		*w = waker{done: w.done + 1}
		return s
	}
	switch w.step {
	case 0:
		s.items[i]++
	case 1:
		if w.saw = s.sleepers[i].field; w.saw == 0 {
			return over()
		}
	case 2:
		if s.sleepers[i].field != w.saw {
			return over()
		}
		s.sleepers[i].field = 0
		if w.saw == 1 {
			w.step = 10
			return s
		}
	case 3:
		if p.flaw == bitLate {
			w.target = s.wait
			break
		}
		s.bits |= p.bit(i)
	case 4:
		if p.flaw == bitLate {
			s.bits |= p.bit(i)
		} else {
			w.target = s.wait
		}
		if w.target == 0 {
			return over()
		}
	case 5:
		if p.flaw == pageClearLate {
			if w.target == 1 {
				s.countPage()
			}
			break
		}
		if s.wait != w.target {
			return over()
		}
		s.wait = 0
	case 6:
		switch {
		case p.flaw == pageClearLate:
			if s.wait != w.target {
				return over()
			}
			s.wait = 0
		case p.flaw == pageCountLate:
			s.wakePage()
		case p.flaw != pageNoCount:
			s.countPage()
		}
	case 7:
		if w.target == 2 {
			s.bell = true
		} else if p.flaw == pageCountLate {
			s.countPage()
		} else {
			s.wakePage()
		}
		return over()
	case 10: // its own futex
		s.sleepers[i].moved = true
	case 11:
		if own := &s.sleepers[i]; own.step == pAsleep && own.how == 1 {
			own.step = pUnnote
		}
		return over()
	}
	w.step++
	return s
}

// happen is an event of the own side, and Conn.rouse of each sleeper.
func (p pagePlan) happen(s pageState) pageState {
	w := &s.happening
	if w.step == 0 && w.target == 0 && p.flaw != pageEventFirst {
		s.events = 1
		w.step = 1
		return s
	}
	own := &s.sleepers[w.target]
	roused := false
	switch w.step {
	case 0, 1:
		w.saw = own.noted
		w.step = 2
		roused = w.saw == 0 && p.flaw != pageEventFirst
	case 2:
		s.events = 1
		if w.saw == 3 {
			own.told = true
		}
		own.moved = own.moved || w.saw == 1
		roused = w.saw != 1
		w.step = 3
	case 3:
		if own.step == pAsleep && own.how == 1 {
			own.step = pUnnote
		}
		roused = true
	}
	if roused {
		w.target++
		w.step = 1
		if w.target == 2 {
			w.done = 1
		}
	}
	return s
}

func pagePlans() []modelRun[pagePlan] {
	one, two, lone := [2]uint8{1, 1}, [2]uint8{2, 1}, [2]uint8{2, 0}
	return []modelRun[pagePlan]{
		{"one of two, device", pagePlan{items: lone, device: true}},
		{"only an event", pagePlan{event: true, own: true, bell: true, timeout: true}},
		{"one of two, bell", pagePlan{items: lone, bell: true, timeout: true}},
		{"one of two, gives way", pagePlan{items: lone, gives: true, bell: true, timeout: true}},
		{"one of two, or its own", pagePlan{items: lone, own: true, bell: true, timeout: true}},
		{"one connection, once", pagePlan{items: one, shared: true}},
		{"one connection, both", pagePlan{items: one, shared: true, gives: true}},
		{"two connections, bell", pagePlan{items: one, bell: true}},
		{"two connections, futex", pagePlan{items: two}},
		{"one connection, bell", pagePlan{items: one, shared: true, bell: true}},
		{"one of two, event", pagePlan{items: [2]uint8{1, 0}, event: true, bell: true, timeout: true}},
	}
}

// longPagePlans take gigabytes together.
func longPagePlans() []modelRun[pagePlan] {
	one, two := [2]uint8{1, 1}, [2]uint8{2, 1}
	return []modelRun[pagePlan]{
		{"two connections, either", pagePlan{items: one, bell: true, timeout: true}},
		{"one of two, event, own", pagePlan{items: [2]uint8{1, 0}, event: true, own: true}},
		{"one side of it, event", pagePlan{items: [2]uint8{1, 0}, shared: true, event: true, bell: true}},
		{"one connection, futex", pagePlan{items: two, shared: true}},
		{"two connections, give", pagePlan{items: one, gives: true, bell: true}},
	}
}

func explorePage(p pagePlan) (states int, stuck *pageState) {
	return search(pageState{}, p.next, p.over)
}

func TestPageModelLosesNoWakeUp(t *testing.T) {
	all := pagePlans()
	if os.Getenv("ISMFS_SOAK") != "" {
		all = append(all, longPagePlans()...)
	}
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			states, stuck := explorePage(p.plan)
			if stuck != nil {
				t.Fatalf("a wake-up is lost: %+v", *stuck)
			}
			t.Logf("%d states", states)
		})
	}
}

func TestPageModelFindsFlaws(t *testing.T) {
	for _, f := range []flaw{
		noScan, scanPlain, pageSeqLate, pageDrainLate, exitDrainLate, exitUnlocked, onBellLate, leaveSilently, tellOne, bitLate, pageClearLate,
		pageNoCount, pageCountLate, forgetLate, pageNoLook, pageLate, pageNoteLate, pageEventFirst,
	} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			for _, p := range pagePlans() {
				if f == tellOne && !p.plan.shared {
					continue
				}
				p.plan.flaw = f
				if _, stuck := explorePage(p.plan); stuck != nil {
					return
				}
			}
			t.Error("no run of the model finds it")
		})
	}
}
