// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc/internal/stream"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

const (
	// idleTime is how long a group without connections keeps its DMBs (SMC_LGR_FREE_DELAY_SERV and …_CLNT). The client's end
	// later, so that no server offers to reuse what the client has let go.
	idleTime       = 600 * time.Second
	idleTimeClient = idleTime + 30*time.Second

	// mostPooled is how many own DMBs a group keeps for reuse.
	mostPooled = 256
)

// A Group is a link group: what this process shares with one other process in one role. The device's lock guards what
// changes.
type Group struct {
	dev     *Device
	role    procs.Role
	id      uint32 // this side's
	peer    uint32 // the peer's procs id, 0 if it says none: then nothing is reused
	peerID  uint32 // of a client's group: the server's id of it
	epoch   uint64
	eid     smc.EID
	release uint8

	confirmed bool   // the device has confirmed who the peer is
	known     bool   // the peer knows the group: a server need not introduce it
	keyed     bool   // found by new connections
	users     int    // connections and handshakes
	met       uint32 // the device word before the peer was last asked for; of a server's group
	pool      []*buffer
	bits      bits
	timer     *time.Timer
	slot      *dmb.Slot

	page doorbell
}

// ErrOutOfSync says that the server continues a link group that this side does not know (any more).
var ErrOutOfSync = smc.DeclSyncErr

// serverGroup returns the group of a client that says it is the process peer, new if need be, with one user more.
func (d *Device) serverGroup(peer uint32, agreed smc.Agreement) *Group {
	var garbage []closer
	defer func() { closeAll(garbage) }()
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.servers[peer]
	if g == nil || !g.usable() || g.eid != agreed.EID {
		garbage = d.retire(g)
		g = d.newGroup(procs.Server, peer, agreed)
		if peer != 0 {
			d.servers[peer], g.keyed = g, true
		}
	}
	g.join()
	return g
}

// clientGroup returns the group of a server, the process peer, which calls it id; with one user more. first says that the
// server takes it for the first contact: then there is a new one if need be.
func (d *Device) clientGroup(peer, id uint32, first bool, agreed smc.Agreement) (*Group, error) {
	var garbage []closer
	defer func() { closeAll(garbage) }()
	d.mu.Lock()
	defer d.mu.Unlock()
	key := clientKey{peer, id}
	g := d.clients[key]
	if g != nil && (!g.usable() || g.eid != agreed.EID) {
		garbage = d.retire(g)
		g = nil
	}
	if g == nil {
		if !first {
			return nil, ErrOutOfSync
		}
		g = d.newGroup(procs.Client, peer, agreed)
		g.peerID, g.confirmed, g.keyed = id, true, true
		d.clients[key] = g
	}
	g.join()
	return g, nil
}

// retire makes room for the successor of a group that may be nil. What it holds goes with its last user: at once, if there is
// none. The lock is held; what has to be closed is returned.
func (d *Device) retire(g *Group) (garbage []closer) {
	d.unkey(g)
	if g != nil && g.users == 0 {
		return g.emptied()
	}
	return nil
}

// retireLost ends the idle group of a client that has let go of it: a connection that continues it would only be declined. The
// device word moves when that happens, so it is asked only then.
func (d *Device) retireLost(peer uint32) {
	d.mu.Lock()
	g := d.servers[peer]
	ask := g != nil && g.users == 0 && g.met != d.block.Word()
	if ask {
		g.met = d.block.Word()
	}
	d.mu.Unlock()
	if ask && g.page.peerGone() {
		g.endIfIdle()
	}
}

func (d *Device) newGroup(role procs.Role, peer uint32, agreed smc.Agreement) *Group {
	d.lastID += 1 << 8 // the low byte is for the links of SMC-R
	if d.lastID == 0 {
		d.lastID += 1 << 8
	}
	g := &Group{
		dev: d, role: role, id: d.lastID, peer: peer, epoch: d.block.Epoch(), eid: agreed.EID, release: agreed.Release,
		slot: d.NewSlot(),
	}
	g.page.group = g
	if !d.watched {
		d.watched = true
		go d.watch()
	}
	return g
}

// randomID is where a process begins to count its link groups, in the kernel's steps of 256, so that those of two processes
// hardly ever look the same.
func randomID() uint32 { return rand.Uint32() << 8 }

// usable reports whether new connections may join. The lock is held.
func (g *Group) usable() bool {
	return g.keyed && g.epoch == g.dev.block.Epoch() && !g.dev.dead.Load()
}

// join adds a user. The lock is held.
func (g *Group) join() {
	g.users++
	g.dev.users++
	if g.timer != nil {
		g.timer.Stop()
	}
}

// leave takes a user away. The lock is held; what has to be closed is returned.
func (g *Group) leave() (garbage []closer) {
	g.users--
	g.dev.users--
	switch {
	case g.users > 0:
		return nil
	case !g.usable() || !g.confirmed:
		g.dev.unkey(g)
		return g.emptied()
	}
	wait := idleTime
	if g.role == procs.Client {
		wait = idleTimeClient
	}
	if g.timer == nil {
		g.timer = time.AfterFunc(wait, g.endIfIdle)
	} else {
		g.timer.Reset(wait)
	}
	return nil
}

// endIfIdle ends a group that nobody uses.
func (g *Group) endIfIdle() {
	d := g.dev
	d.mu.Lock()
	var garbage []closer
	if g.users == 0 {
		d.unkey(g)
		garbage = g.emptied()
	}
	d.mu.Unlock()
	closeAll(garbage)
}

// unkey keeps new connections from joining a group. The lock is held.
func (d *Device) unkey(g *Group) {
	if g == nil || !g.keyed {
		return
	}
	g.keyed = false
	if g.role == procs.Server {
		delete(d.servers, g.peer)
	} else {
		delete(d.clients, clientKey{g.peer, g.peerID})
	}
	if len(d.servers)+len(d.clients) == 0 {
		d.block.Wake() // the watcher ends
	}
}

// emptied takes out what a group without users holds. The lock is held.
func (g *Group) emptied() (garbage []closer) {
	if g.timer != nil {
		g.timer.Stop()
	}
	for _, b := range g.pool {
		garbage = append(garbage, b)
	}
	g.pool = nil
	for _, r := range g.dev.remotes {
		if r.group == g && r.inUse == nil {
			garbage = append(garbage, g.dev.forget(r))
		}
	}
	garbage = append(garbage, &g.page)
	if g.slot != nil {
		garbage = append(garbage, freed{g.slot})
		g.slot = nil
	}
	return garbage
}

// outOfSync takes the word of a client that it does not know the group: the next connection introduces it again. Nothing ends,
// since anybody can say so; and what a client has really let go of, the device tells.
func (g *Group) outOfSync() {
	g.dev.mu.Lock()
	g.known = false
	g.dev.mu.Unlock()
}

// describe writes the group's slot.
func (g *Group) describe(host string, os uint8, peerPage uint64) {
	if g.slot == nil {
		return
	}
	g.slot.SetGroup(&procs.Group{
		Role: g.role, Release: g.release, OS: os, ID: g.id, Peer: g.peer,
		Page: uint64(g.page.token()), PeerPage: peerPage, EID: g.eid, Host: host,
	})
}

// CloseIdle ends the groups that have no connections, instead of after ten minutes.
func (d *Device) CloseIdle() {
	d.mu.Lock()
	var garbage []closer
	for _, g := range d.groups() {
		if g.users == 0 {
			d.unkey(g)
			garbage = append(garbage, g.emptied()...)
		}
	}
	d.mu.Unlock()
	closeAll(garbage)
}

// groups returns the groups that new connections can join. The lock is held.
func (d *Device) groups() []*Group {
	var all []*Group
	for _, g := range d.servers {
		all = append(all, g)
	}
	for _, g := range d.clients {
		all = append(all, g)
	}
	return all
}

// leastPause is the time between two rounds of the watcher; see stream.Process.
const leastPause = time.Second

// watch drops what is kept for nothing: the groups of an earlier epoch, and the DMBs of processes that have gone. It runs
// while there are groups, a thread in the kernel for most of its life.
func (d *Device) watch() {
	for {
		word := d.block.Word()
		began := time.Now()
		if !d.sweep() {
			return
		}
		if d.block.Word() != word { // many at once: one round for all
			time.Sleep(max(leastPause, 100*time.Since(began)))
			continue
		}
		d.block.WaitWord(word, 0)
	}
}

// sweep is one round; it reports whether there are groups.
func (d *Device) sweep() bool {
	d.mu.Lock()
	all := d.groups()
	if len(all) == 0 {
		d.watched = false
		d.mu.Unlock()
		return false
	}
	var garbage []closer
	var asked []*Group // to be asked about, without the lock
	for _, g := range all {
		switch {
		case g.users > 0:
		case !g.usable() || d.block.State() != dmb.Active: // draining: nothing will be reused
			d.unkey(g)
			garbage = append(garbage, g.emptied()...)
		default:
			asked = append(asked, g)
		}
	}
	d.mu.Unlock()
	closeAll(garbage)
	for _, g := range asked {
		if g.page.peerGone() {
			g.endIfIdle()
		}
	}
	d.dropLost()
	return true
}

// A closer is something that a group has held.
type closer interface{ Close() error }

// freed gives a slot back.
type freed struct{ *dmb.Slot }

func (f freed) Close() error {
	f.Free()
	return nil
}

// closeAll closes what nobody uses any more. There is nobody to tell of an error: the daemon is gone, at worst.
func closeAll(garbage []closer) error {
	var errs []error
	for _, c := range garbage {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// bits gives out the bits of a doorbell page, from 1 on.
type bits struct {
	free []uint16
	last uint16
}

// take returns a bit, 0 if there is none.
func (b *bits) take() uint16 {
	if n := len(b.free); n > 0 {
		bit := b.free[n-1]
		b.free = b.free[:n-1]
		return bit
	}
	if b.last == stream.PageBits-1 {
		return 0
	}
	b.last++
	return b.last
}

func (b *bits) give(bit uint16) {
	if bit != 0 {
		b.free = append(b.free, bit)
	}
}
