// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"math/bits"
	"runtime"
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
//	2  enter: there is a dispatcher then          bell                              2  clear the sleeper's wait field by
//	3  note; announce in the peer's header;    2  is it needed? else end               compare-and-swap
//	   fence                                   3  announce in the own page; fence   3  set the bit; fence
//	4  look again: news is the end             4  take the bits; tell: then to 6    4  clear the page's wait state by
//	5  wait until told                         5  wait for the page                    compare-and-swap: awake is the end
//	6  take back; leave, and end the poll if   6  take back; take the bits; tell    5  move the page's sequence and wake
//	   the dispatcher is on it for nobody                                              its futex; or ring its bell
//
// A peer can set any bit at any time. That makes sleepers of this group look once more, and the dispatcher work.
type Pages struct {
	own, peer         *dmb.Page
	ownBell, peerBell *dmb.Bell

	asleep atomic.Int32 // connections of which a side sleeps, on whatever
	words  atomic.Int32 // of the own page, up to the last one in use

	mu       sync.Mutex
	conns    []*Conn // by the own bit
	sleepers int     // sides on the page
	running  bool    // the dispatcher
	onBell   bool    // it sleeps on the bell, or is about to
	closing  bool
	ended    sync.WaitGroup // the dispatcher
}

// NewPages makes Pages of the own page and the peer's, with their bells. They stay the caller's, and must live until Close.
// nil if these are no pages.
func NewPages(own *dmb.Registered, ownBell *dmb.Bell, peer *dmb.Attached, peerBell *dmb.Bell) *Pages {
	p := &Pages{own: own.Page(), ownBell: ownBell, peer: peer.Page(), peerBell: peerBell}
	if p.own == nil || p.peer == nil {
		return nil
	}
	return p
}

// Close ends the use of the pages. No connection uses them any more.
func (p *Pages) Close() error {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
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
}

// usable reports whether a connection with these bits can use the pages: the peer chose one of them.
func (p *Pages) usable(own, peer uint16) bool {
	return p != nil && own != 0 && peer != 0 && own < PageBits && peer < PageBits
}

// ring tells the peer's process that the connection with a bit there has news. The caller owes it a wake-up.
func (p *Pages) ring(bit uint16) {
	p.peer.Set(bit)
	switch p.peer.ClearWaiting() {
	case dmb.OnFutex:
		p.peer.Wake()
	case dmb.OnBell:
		p.peerBell.Ring()
	}
}

// enter counts a sleeper, for which there is a dispatcher from now on.
func (p *Pages) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sleepers++
	if !p.running {
		p.running = true
		p.ended.Add(1)
		go p.dispatch()
	}
}

// exit ends what enter began. A dispatcher that sleeps on the futex for nobody ends by itself, after futexTime at most: most
// of the time somebody else comes before.
func (p *Pages) exit() {
	p.mu.Lock()
	end := p.sleepers == 1 && p.onBell
	p.sleepers--
	p.mu.Unlock()
	if end {
		p.ownBell.Interrupt()
	}
}

// awakeScans is how often the dispatcher looks for more, after it found something and let those whom it told run: whoever
// signals meanwhile makes no system call.
const awakeScans = 8

// dispatch sleeps on the own page for all sleepers.
func (p *Pages) dispatch() {
	defer p.ended.Done()
	patient := false // the last sleep on the futex lasted its time
	for {
		for range awakeScans {
			if !p.scan() {
				break
			}
			runtime.Gosched()
		}
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

// needed reports whether anybody sleeps on the page. If not the dispatcher ends.
func (p *Pages) needed(how dmb.Wait) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = p.sleepers > 0 && !p.closing
	p.onBell = p.running && how == dmb.OnBell
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
				p.conns[bit].reading.tell()
				p.conns[bit].writing.tell()
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
