// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// A buffer is one of this process's DMBs, with its bell if it was ever needed.
type buffer struct {
	*dmb.Registered
	bell  *dmb.Bell
	epoch uint64 // of the device, from before it was registered
	met   uint32 // the device word from before it was last known to have its peer; only of one that was used
	group *Group
}

func (b *buffer) Close() error {
	d := b.group.dev
	d.mu.Lock()
	delete(d.own, b.Token())
	d.mu.Unlock()
	return errors.Join(closeBell(b.bell), b.Registered.Close())
}

// openBell opens the bell of a DMB if it is not open.
func (d *Device) openBell(b **dmb.Bell, t dmb.Token) (err error) {
	if *b == nil {
		*b, err = dmb.OpenBell(d.tree, t)
	}
	return d.noted(err)
}

func closeBell(b *dmb.Bell) error {
	if b == nil {
		return nil
	}
	return b.Close()
}

// buffer returns a DMB of size bytes for a connection of the group: one that an earlier connection has left, or a new one,
// smaller if memory is short (smc_buf_create). size 0 is for this function to choose. Its errors are for Reason.
func (g *Group) buffer(size int) (*buffer, error) {
	larger := size == 0
	if larger {
		size = g.dev.defaultSize()
	}
	if b := g.pooled(size, larger); b != nil {
		g.count(b, dmb.RxReuse)
		return b, nil
	}
	for n := size; ; n /= 2 {
		b, err := g.register(n)
		if errors.Is(err, syscall.ENOSPC) && g.dev.dropPools() {
			b, err = g.register(n)
		}
		switch {
		case err == nil:
			g.count(b, dmb.RxAlloc)
			if n < size {
				g.dev.block.Add(dmb.RxDowngrade, 1)
			}
			return b, nil
		case !errors.Is(err, syscall.ENOMEM) || n <= smc.MinBufSize:
			return nil, g.dev.noted(err)
		}
	}
}

// defaultSize is the size of the next connection's DMB where nobody says otherwise. The more connections this process has, the
// smaller it is: a few connections that carry much want rings in which both sides work at once (docs/performance.md); of many, the
// rings together should stay in the CPU's cache, since each is gone through from end to end however little there is in it; and ten
// thousand that mostly rest want to cost little. Where connections come and go with little, a large ring would cost more than it
// carries. The kernel's is always 64 KiB (net.smc.rmem).
func (d *Device) defaultSize() int {
	d.mu.Lock()
	n := d.users // the one that asks is among them
	light := d.traffic.isLight(time.Now())
	d.mu.Unlock()
	switch {
	case n <= 8 && !light:
		return smc.MaxBufSize
	case n <= 16 && !light:
		return 256 << 10
	case n <= 64:
		return 64 << 10
	case n <= 256:
		return 32 << 10
	}
	return smc.MinBufSize
}

// count counts a buffer that comes into use.
func (g *Group) count(b *buffer, how dmb.Counter) {
	block := g.dev.block
	block.Add(how, 1)
	block.Add(dmb.IntRxBuf.Sized(b.Size()), 1)
	block.Add(dmb.RxUsage, uint64(b.Size()))
}

// uncount counts one that goes out of use.
func (g *Group) uncount(b *buffer) { g.dev.block.Add(dmb.RxUsage, -uint64(b.Size())) }

// pooled takes a DMB out of the pool that is as a new one would be, or larger if that will do; nil if there is none.
func (g *Group) pooled(size int, larger bool) *buffer {
	for {
		b := g.fromPool(size, larger)
		if b == nil {
			return nil
		}
		word := g.dev.block.Word()
		if b.met == word && g.dev.answeredLately() {
			return b
		}
		// Something has lost its peer since (this one?), or nobody knows whether the daemon lives.
		links, err := b.Links()
		if err == nil && links == 2 {
			g.dev.answered()
			b.met = word
			return b
		}
		g.dev.noted(err)
		b.Close()
	}
}

func (g *Group) fromPool(size int, larger bool) *buffer {
	d := g.dev
	kind, mode := d.block.Settings()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(g.pool) - 1; i >= 0; i-- {
		b := g.pool[i]
		if b.Size() < size || b.Size() > size && !larger || b.epoch != d.block.Epoch() || b.Type() != kind || b.Separated() != (mode == tree.Separated) {
			continue
		}
		g.pool = append(g.pool[:i], g.pool[i+1:]...)
		return b
	}
	return nil
}

// mostRegistering is how many DMBs a process registers at once. Each holds a thread in the kernel, and until it has its size the
// device holds as much memory for it as a DMB can have: of hundreds at once the last would be refused.
const mostRegistering = 16

// register registers a new DMB.
func (g *Group) register(size int) (*buffer, error) {
	d := g.dev
	d.turns <- struct{}{}
	defer func() { <-d.turns }()
	b := &buffer{epoch: d.block.Epoch(), group: g}
	var err error
	if b.Registered, err = dmb.Register(d.tree, size, d.block); err != nil {
		return nil, d.atLimit(err)
	}
	d.answered()
	d.mu.Lock()
	d.own[b.Token()] = g.role
	d.mu.Unlock()
	return b, nil
}

// atLimit adds to an error which limits of the device it can be about.
func (d *Device) atLimit(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: as many DMBs as the device at %s takes (--max-dmbs and --max-dmbs-per-uid of ismfs mount)", err, d.Point())
	case errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w: memory is short, or what the device at %s takes (--max-bytes and --max-bytes-per-uid of ismfs mount)", err, d.Point())
	}
	return err
}

// reflected refuses a token that a peer says is its own and that is one of this process's, in the same role. A process can be
// connected to itself, but no end of a connection can.
func (d *Device) reflected(t dmb.Token, role procs.Role) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if has, mine := d.own[t]; mine && has == role {
		return fmt.Errorf("%v is a DMB of this side's own: %w", t, smc.DeclMem)
	}
	return nil
}

// dropPools frees the DMBs that are kept for reuse, since the device has no room for more, and reports whether there were any.
func (d *Device) dropPools() bool {
	d.mu.Lock()
	var garbage []closer
	for _, g := range d.groups() {
		for _, b := range g.pool {
			garbage = append(garbage, b)
		}
		g.pool = nil
	}
	d.mu.Unlock()
	closeAll(garbage)
	return len(garbage) > 0
}

// A remote is a peer's DMB that this process is attached to, with its bell if it was ever needed. It stays attached after its
// connection, for the next: a DMB is attached once in its life. The device's lock guards what changes.
type remote struct {
	*dmb.Attached
	bell  *dmb.Bell
	group *Group        // once it is known
	inUse chan struct{} // closed when its connection or handshake is over; nil: there is none
}

func (r *remote) Close() error { return errors.Join(closeBell(r.bell), r.Attached.Close()) }

// rest ends the use of a remote that stays attached. The lock is held.
func (r *remote) rest() {
	close(r.inUse)
	r.inUse = nil
}

// forget takes a remote out for good; the caller closes what it returns. The lock is held.
func (d *Device) forget(r *remote) closer {
	delete(d.remotes, r.Token())
	if r.inUse != nil {
		r.rest()
	}
	return r
}

// dropLost lets go of the remotes that no connection uses and whose owner has let go of them, or is dead: nobody will offer them again.
func (d *Device) dropLost() {
	d.mu.Lock()
	tokens := slices.Collect(maps.Keys(d.remotes))
	d.mu.Unlock()
	for _, t := range tokens {
		if r := d.takeResting(t); r != nil {
			links, err := r.Links()
			d.putBack(r, err == nil && links < 2)
		}
	}
}

// takeResting takes a remote into use, so that nobody closes it meanwhile; nil if it is in use, or there is none.
func (d *Device) takeResting(t dmb.Token) *remote {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.remotes[t]
	if r == nil || r.inUse != nil {
		return nil
	}
	r.inUse = make(chan struct{})
	return r
}

// putBack ends the use of a remote that was resting. Its group may have ended meanwhile.
func (d *Device) putBack(r *remote, lost bool) {
	d.mu.Lock()
	lost = lost || !r.group.keyed && r.group.users == 0
	if lost {
		d.forget(r)
	} else {
		r.rest()
	}
	d.mu.Unlock()
	if lost {
		r.Close()
	}
}

// endTime is how long a DMB that is offered again is waited for. Its owner has heard that both sides have closed, which here
// may still be on its way to everybody whom it concerns.
const endTime = time.Second

// attach attaches a peer's DMB, or takes the one that stayed attached.
func (d *Device) attach(t dmb.Token, size uint8) (*remote, error) {
	bytes := smc.UncompressBufSize(size)
	if bytes > smc.MaxBufSize {
		return nil, fmt.Errorf("a DMB of %d bytes: %w", bytes, smc.DeclMem)
	}
	r, err := d.resting(t)
	switch {
	case err != nil:
		return nil, err
	case r != nil && r.Size() == bytes:
		return r, nil
	case r != nil:
		d.mu.Lock()
		d.forget(r)
		d.mu.Unlock()
		r.Close()
		return nil, fmt.Errorf("DMB %v: %w", t, dmb.ErrSize)
	}
	a, err := dmb.Attach(d.tree, t, bytes)
	if err != nil {
		return nil, d.noted(err)
	}
	d.answered()
	r = &remote{Attached: a, inUse: make(chan struct{})}
	d.mu.Lock()
	d.remotes[t] = r
	d.mu.Unlock()
	return r, nil
}

// resting takes the remote with a token into use, nil if there is none. Error: it stays in use.
func (d *Device) resting(t dmb.Token) (*remote, error) {
	var late <-chan time.Time
	for {
		d.mu.Lock()
		r := d.remotes[t]
		var inUse chan struct{}
		if r != nil {
			if inUse = r.inUse; inUse == nil {
				r.inUse = make(chan struct{})
			}
		}
		d.mu.Unlock()
		if inUse == nil {
			return r, nil
		}
		if late == nil {
			late = time.After(endTime)
		}
		select {
		case <-inUse:
		case <-late:
			return nil, fmt.Errorf("DMB %v is in use by another connection: %w", t, syscall.EBUSY)
		}
	}
}
