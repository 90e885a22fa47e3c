// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ismfs/ismfs/dmb"
)

// PageBits is how many bits a doorbell page has (docs/dmb-format.md, section 2). Bit 0 is nobody's.
const PageBits = dmb.PageBits

// Pages are the two doorbell pages of a link group: many connections that sleep on the own one cost their peer one wake-up.
//
// While any of them does, one goroutine, the dispatcher, sleeps on the page for all, on its futex and after a while on its
// bell, and tells those whose bits were set (model_page_test.go goes through every interleaving):
//
//	sleeper                                    dispatcher                           signaller, in the other process
//	1  forget what was told                    1  load the sequence; or empty the   1  publish; fence
//	2  count itself; the first one starts the     bell                              2  clear the sleeper's wait field by
//	   dispatcher if there is none             2  say if it is on the bell; is         compare-and-swap
//	3  note; announce in the peer's header;       anybody counted? else end         3  set the bit; fence
//	   fence                                   3  announce in the own page; fence   4  clear the page's wait state by
//	4  look again: news is the end             4  take the bits; tell those of         compare-and-swap: awake is the end
//	5  wait until told                            them who have noted: then to 6    5  move the page's sequence and wake
//	6  take the announcement back if there     5  wait for the page                    its futex; or ring its bell
//	   was news; count itself out, and end     6  take back; take the bits; tell
//	   the poll if it was the last and the
//	   dispatcher is on the bell
//
// The note stays, and so does an announcement that the signaller has not cleared, when it was an event of the own side that
// woke the sleeper. Who is told in vain finds that out at its next sleep, in step 1.
//
// A peer can set any bit at any time. That makes sleepers of this group look once more, and the dispatcher work.
type Pages struct {
	own, peer         *dmb.Page
	ownBell, peerBell *dmb.Bell

	alone    uint16 // how many connections wait as if they were alone
	crowd    crowd
	period   atomic.Int64 // in which it works, by the dispatcher's clock; 0 while it sleeps
	words    atomic.Int32 // of the own page, up to the last one in use
	sleepers atomic.Int32 // sides on the page
	onBell   atomic.Bool  // the dispatcher sleeps on the bell, or is about to
	blocking atomic.Bool  // who waited last wants no looking for news
	oneCPU   atomic.Bool  // both processes are bound to one CPU, as the dispatcher saw last
	giveWay  atomic.Bool  // sides give way instead of sleeping
	found    atomic.Int64 // how often sides have stopped waiting, while oneCPU
	closing  atomic.Bool

	mu      sync.Mutex
	conns   []*Conn        // by the own bit
	running bool           // the dispatcher
	ended   sync.WaitGroup // the dispatcher

	// The dispatcher's.
	watching             watcher
	yielding, conducting spinner
	asleep               pace  // of the sides while they sleep
	resumed              int64 // when this process got the CPU
}

// NewPages makes Pages of the own page and the peer's, with their bells. They stay the caller's, and must live until Close.
// nil if these are no pages.
func NewPages(own *dmb.Registered, ownBell *dmb.Bell, peer *dmb.Attached, peerBell *dmb.Bell) *Pages {
	p := &Pages{own: own.Page(), ownBell: ownBell, peer: peer.Page(), peerBell: peerBell, alone: mostAlone}
	if p.own == nil || p.peer == nil {
		return nil
	}
	return p
}

// Close ends the use of the pages. No connection uses them any more.
func (p *Pages) Close() error {
	p.closing.Store(true)
	p.own.Wake()
	p.ownBell.Interrupt()
	p.ended.Wait()
	return nil
}

// join takes a connection in, whose bits are valid.
func (p *Pages) join(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bit := int(c.link.OwnBit)
	if bit >= len(p.conns) {
		p.conns = append(p.conns, make([]*Conn, bit+1-len(p.conns))...)
		p.words.Store(int32(bit/64 + 1))
	}
	p.conns[bit] = c
}

// leave takes a connection out that is over. A bit that is set later is the next one's.
func (p *Pages) leave(c *Conn) {
	p.mu.Lock()
	p.conns[c.link.OwnBit] = nil
	p.mu.Unlock()
	p.left(c)
}

// Usable reports whether a connection with these bits can use the pages, which may be nil: the peer chose one of them.
func (p *Pages) Usable(own, peer uint16) bool {
	return p != nil && own != 0 && peer != 0 && own < PageBits && peer < PageBits
}

// ring tells the peer's process that the connection with a bit there has news, and reports whether it had to be woken. The
// caller owes it a wake-up.
func (p *Pages) ring(bit uint16) (woken bool) {
	p.peer.Set(bit)
	switch p.peer.ClearWaiting() {
	case dmb.OnFutex:
		p.peer.Wake()
		return true
	case dmb.OnBell:
		p.peerBell.Ring()
		return true
	}
	return false
}

// enter counts a sleeper, for which there is a dispatcher from now on.
func (p *Pages) enter() {
	if p.sleepers.Add(1) > 1 {
		return // the first one sees to it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running {
		p.running = true
		p.ended.Add(1)
		go p.dispatch()
	}
}

// exit ends what enter began. A dispatcher that sleeps on the futex for nobody ends by itself, after futexTime at most: most
// of the time somebody else comes before.
func (p *Pages) exit() {
	if p.sleepers.Add(-1) == 0 && p.onBell.Load() {
		p.ownBell.Interrupt()
	}
}

// dispatch sleeps on the own page for all sleepers.
func (p *Pages) dispatch() {
	defer p.ended.Done()
	patient := false // the last sleep on the futex lasted its time
	for {
		p.asleep = pace{}
		p.resume()
		for p.wanted() && (p.scan() || p.spin()) {
			p.turn() // of those whom it told; whoever signals meanwhile makes no system call
		}
		p.period.Store(0)
		p.own.SetSlice(0)
		how, seq := dmb.OnBell, uint32(0)
		if !patient && takeThread() {
			how, seq = dmb.OnFutex, p.own.Sequence() // 1
		} else {
			p.ownBell.Drain()
		}
		if !p.needed(how) { // 2
			giveThread(how)
			return
		}
		p.own.SetWaiting(how) // 3
		patient = false
		if !p.scan() { // 4
			patient = p.sleep(how, seq) // 5
		}
		p.own.SetWaiting(dmb.Awake) // 6
		giveThread(how)
	}
}

// wanted reports whether the dispatcher may go on without a sleep: a peer that sets bits without end would have it work for ever.
func (p *Pages) wanted() bool { return p.sleepers.Load() > 0 && !p.closing.Load() }

// spin looks for news for a while, and tells of them.
func (p *Pages) spin() bool {
	if p.blocking.Load() || !host.idle(clock()) {
		return false
	}
	where := p.relation()
	return where != sameCPU && p.watching.watch(p.scan, false) || where != apart && p.yielding.yield(p.giveCPU, p.scan)
}

// needed reports whether anybody sleeps on the page. If not the dispatcher ends.
func (p *Pages) needed(how dmb.Wait) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onBell.Store(how == dmb.OnBell) // before it looks: see exit
	p.running = p.sleepers.Load() > 0 && !p.closing.Load()
	if !p.running {
		p.onBell.Store(false)
	}
	return p.running
}

// sleep waits for the page, and reports whether the next sleep should be on the bell.
func (p *Pages) sleep(how dmb.Wait, seq uint32) (patient bool) {
	if how == dmb.OnFutex {
		return p.own.WaitSequence(seq, futexTime)
	}
	if err := p.ownBell.Wait(); err != nil {
		p.failAll(err)
	}
	return false
}

// scan takes the bits that are set, tells those whom they concern, and reports whether there were any.
func (p *Pages) scan() (any bool) {
	for w := range int(p.words.Load()) {
		set := p.own.Take(w)
		if set == 0 {
			continue
		}
		any = true
		p.mu.Lock()
		for ; set != 0; set &= set - 1 {
			if bit := 64*w + bits.TrailingZeros64(set); bit < len(p.conns) && p.conns[bit] != nil {
				p.conns[bit].reading.tellOnPage()
				p.conns[bit].writing.tellOnPage()
			}
		}
		p.mu.Unlock()
	}
	return any
}

// failAll ends the group's connections: their bell does not work.
func (p *Pages) failAll(err error) {
	p.mu.Lock()
	conns := append([]*Conn(nil), p.conns...)
	p.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			c.fail(err)
		}
	}
}
