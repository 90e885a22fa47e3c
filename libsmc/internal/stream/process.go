// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/dmb"
)

// A Process is this process on a device: its procs block, and its connections there. While there are any, one goroutine (a
// thread, in the kernel most of its life) listens to the device's word and passes it on.
type Process struct {
	block atomic.Pointer[dmb.Block]

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	watching bool
	ended    sync.WaitGroup // the watcher
}

// NewProcess makes a Process of the process's block, which it owns from then on.
func NewProcess(b *dmb.Block) *Process {
	p := &Process{conns: make(map[*Conn]struct{})}
	p.block.Store(b)
	return p
}

// Block returns the block.
func (p *Process) Block() *dmb.Block { return p.block.Load() }

// MoveTo makes another block the process's: that of the device that has come after the daemon's death. The connections, whose
// memory needs no daemon, are described and counted there from now on, and end when that device is switched off. It reports
// whether there are any. The old block stays mapped: somebody may be counting in it.
func (p *Process) MoveTo(b *dmb.Block) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.block.Swap(b)
	for c := range p.conns {
		c.moveTo(b)
	}
	old.Wake()   // the watcher listens to the new one
	old.Retire() // its daemon is dead; an error says no more
	return len(p.conns) > 0
}

// Close waits for the watcher and unmaps the block. All connections must have been closed.
func (p *Process) Close() error {
	p.ended.Wait()
	return p.Block().Close()
}

// usable reports whether what was made in an epoch is still valid.
func (p *Process) usable(epoch uint64) bool {
	b := p.Block()
	return b.Epoch() == epoch && b.State() != dmb.Inactive
}

// add takes a connection in. What the device says from now on reaches it; what it has said before is looked at here.
func (p *Process) add(c *Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.usable(c.link.Epoch) {
		return os.NewSyscallError("connect", syscall.ECONNABORTED)
	}
	p.conns[c] = struct{}{}
	if !p.watching {
		p.watching = true
		p.ended.Add(1)
		go p.watch(p.Block().Word())
	}
	return nil
}

func (p *Process) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	if len(p.conns) == 0 {
		p.Block().Wake()
	}
}

// leastPause is the time between two rounds of asking the device about all connections; if a round took long it is a hundred
// times as long as that, so that asking takes one percent of a CPU at most. The TCP connection tells of most deaths before.
const leastPause = time.Second

// watch waits for the device's word. heard is what it was when the first connection came.
func (p *Process) watch(heard uint32) {
	defer p.ended.Done()
	var next time.Time // when all may be asked again
	ask := false
	for {
		block := p.Block()
		word := block.Word()
		conns := p.current()
		if conns == nil {
			return
		}
		if word != heard {
			heard, ask = word, true
			p.killInvalid(conns)
		}
		if ask && time.Now().After(next) {
			began := time.Now()
			for _, c := range conns {
				c.checkLinks()
			}
			next = time.Now().Add(max(leastPause, 100*time.Since(began)))
			ask = false
		}
		block.WaitWord(word, p.patience(ask, next))
	}
}

// patience is how long to wait for the next word: for ever, unless a round is due.
func (p *Process) patience(ask bool, next time.Time) time.Duration {
	if !ask {
		return 0
	}
	return max(time.Until(next), time.Millisecond)
}

// current returns the connections, or nil if there are none: the watcher then ends.
func (p *Process) current() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) == 0 {
		p.watching = false
		return nil
	}
	conns := make([]*Conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	return conns
}

func (p *Process) killInvalid(conns []*Conn) {
	for _, c := range conns {
		p.mu.Lock()
		usable := p.usable(c.link.Epoch)
		p.mu.Unlock()
		if !usable {
			c.kill()
		}
	}
}
