// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/dmb"
)

// A Process is this process on a device: its procs block, and its connections there. While there are any, one goroutine (a
// thread, in the kernel most of its life) listens to the device's word and passes it on.
type Process struct {
	block *dmb.Block

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	watching bool
	ended    sync.WaitGroup // the watcher
}

// NewProcess makes a Process of the process's block, which it owns from then on.
func NewProcess(b *dmb.Block) *Process {
	return &Process{block: b, conns: make(map[*Conn]struct{})}
}

// Block returns the block.
func (p *Process) Block() *dmb.Block { return p.block }

// Close waits for the watcher and unmaps the block. All connections must have been closed.
func (p *Process) Close() error {
	p.ended.Wait()
	return p.block.Close()
}

// usable reports whether what was made in an epoch is still valid.
func (p *Process) usable(epoch uint64) bool {
	return p.block.Epoch() == epoch && p.block.State() != dmb.Inactive
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
		go p.watch(p.block.Word())
	}
	return nil
}

func (p *Process) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	if len(p.conns) == 0 {
		p.block.Wake()
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
		word := p.block.Word()
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
		p.block.WaitWord(word, p.patience(ask, next))
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
		if !p.usable(c.link.Epoch) {
			c.kill()
		}
	}
}
