// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc/internal/stream"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// An Attempt is this side's half of a handshake: a place in a link group, and the DMBs of the connection to be. It ends with
// Open or with Abandon.
type Attempt struct {
	dev    *Device
	group  *Group
	agreed smc.Agreement
	own    *buffer
	ownBit uint16
	told   bool // the peer knows the token of own
	peer   *remote
	bit    uint16 // of the peer's DMB in the peer's page
	lost   int    // the size of the peer's DMB, which had gone already
	end    error  // how TCP has ended then: io.EOF by a FIN
	deaf   bool   // the peer never sleeps on its DMB's bell if there are pages
	pages  *stream.Pages
	first  bool
}

// Serve prepares a server's half, for the client that says it is the process peer. size is that of this side's DMB. Its
// errors are for Reason.
func (d *Device) Serve(peer uint32, agreed smc.Agreement, size int) (*Attempt, error) {
	d.retireLost(peer)
	a := &Attempt{dev: d, agreed: agreed, group: d.serverGroup(peer, agreed)}
	d.mu.Lock()
	a.first = !a.group.known
	d.mu.Unlock()
	if err := a.prepare(size); err != nil {
		a.Abandon()
		return nil, err
	}
	return a, nil
}

// Connect prepares a client's half, in answer to a server's Accept. It attaches the server's DMB. Its errors are for Reason;
// ErrOutOfSync among them.
func (d *Device) Connect(accept *smc.AcceptConfirm, agreed smc.Agreement, size int) (*Attempt, error) {
	a := &Attempt{dev: d, agreed: agreed, first: accept.FirstContact}
	err := d.reflected(dmb.Token(accept.Token), procs.Client)
	if err != nil {
		return nil, err
	}
	if a.peer, err = d.attach(dmb.Token(accept.Token), accept.DMBESize); err != nil {
		return nil, err
	}
	server := a.peer.Owner()
	if accept.FCE != nil && accept.FCE.VendorExpOptions != 0 && accept.FCE.VendorExpOptions != server {
		a.Abandon()
		return nil, fmt.Errorf("the server says it is process %d, its DMB is process %d's: %w",
			accept.FCE.VendorExpOptions, server, smc.DeclMem)
	}
	if a.group, err = d.clientGroup(server, accept.LinkID, a.first, agreed); err != nil {
		a.Abandon()
		return nil, err
	}
	a.peer.group = a.group
	a.bit, a.deaf = accept.Bit(), accept.PageOnly()
	if err := a.prepare(size); err != nil {
		a.Abandon()
		return nil, err
	}
	if a.first && accept.FCE.Page() != 0 && a.group.page.mine() != 0 {
		if a.group.page.join(dmb.Token(accept.FCE.Page())) == nil {
			a.pages = a.group.page.get()
		}
	} else if !a.first {
		a.pages = a.group.page.get()
	}
	if err := a.openBells(); err != nil {
		a.Abandon()
		return nil, err
	}
	if a.first {
		a.group.describe(accept.FCE.Host(), accept.FCE.OSType, accept.FCE.Page())
	}
	return a, nil
}

// prepare gets this side's DMB.
func (a *Attempt) prepare(size int) error {
	var err error
	if a.own, err = a.group.buffer(size); err != nil {
		return err
	}
	a.dev.mu.Lock()
	a.ownBit = a.group.bits.take()
	a.dev.mu.Unlock()
	return nil
}

// openBells opens the bells that the connection needs, now that it is known whether it uses pages. Sides that sleep on their
// pages only, as this package's do, need none: that is two descriptors and two requests to the daemon less for each.
func (a *Attempt) openBells() error {
	if !a.pages.Usable(a.ownBit, a.bit) {
		a.pages = nil
		if err := a.dev.openBell(&a.own.bell, a.own.Token()); err != nil {
			return err
		}
	} else if a.deaf {
		return nil
	}
	return a.dev.openBell(&a.peer.bell, a.peer.Token())
}

// hostname is the host's name as it goes into first-contact extensions.
var hostname = sync.OnceValue(func() [smc.HostnameLen]byte {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return smc.PadHostname(name)
})

// Accept returns the server's message.
func (a *Attempt) Accept() smc.AcceptConfirm {
	page := dmb.Token(0)
	if a.first && a.group.peer != 0 { // a stranger has no use for a page
		page = a.group.page.mine()
	}
	return a.message(smc.MsgAccept, page)
}

// Confirm returns the client's message.
func (a *Attempt) Confirm() smc.AcceptConfirm {
	if a.pages == nil {
		m := a.message(smc.MsgConfirm, 0)
		m.SetBit(0, false) // neither side uses pages then
		return m
	}
	return a.message(smc.MsgConfirm, a.group.page.token())
}

// message returns this side's message, after which the peer knows the DMB's token. page is for the first contact.
func (a *Attempt) message(t smc.MsgType, page dmb.Token) smc.AcceptConfirm {
	a.told = true
	m := smc.AcceptConfirm{
		Type: t, Version: smc.V2, TypeV1: smc.PathD, FirstContact: a.first,
		GID: a.dev.GID, CHID: smc.CHIDLoopback, EID: a.agreed.EID,
		Token: uint64(a.own.Token()), DMBESize: smc.CompressBufSize(a.own.Size()), LinkID: a.group.id,
	}
	m.SetBit(a.ownBit, a.ownBit != 0)
	if !a.first {
		return m
	}
	m.FCE = &smc.FirstContactExt{
		OSType: smc.OSLinux, Release: a.agreed.Release, Hostname: hostname(), FeatureMask: a.agreed.Features,
	}
	if a.agreed.Release >= 1 && a.group.peer != 0 {
		m.FCE.VendorExpOptions = a.dev.ID()
		m.FCE.SetPage(uint64(page))
	}
	return m
}

// Confirmed takes the client's Confirm, which CheckConfirm has found good: it attaches the client's DMB, by which the device
// confirms who the client is. After an error the connection must be reset, but for syscall.ENOENT: the client's DMB, its bell or
// its doorbell page is not there (any more). See Outlive.
func (a *Attempt) Confirmed(confirm *smc.AcceptConfirm) error {
	err := a.confirmed(confirm)
	if errors.Is(err, syscall.ENOENT) {
		a.lost = smc.UncompressBufSize(confirm.DMBESize)
		a.losePeer()
	}
	return err
}

func (a *Attempt) losePeer() {
	a.pages = nil
	if a.peer == nil {
		return
	}
	a.dev.mu.Lock()
	r := a.dev.forget(a.peer)
	a.dev.mu.Unlock()
	a.peer = nil
	r.Close()
}

// Outlive goes on after a Confirmed that said ENOENT, once TCP has ended, by a FIN if end is io.EOF: the client has ended before
// this side came to its Confirm. It may have sent all that it had to say, which lies in the own DMB.
//
// Error: syscall.ENOENT the client never came there.
func (a *Attempt) Outlive(end error) error {
	if !a.own.Met() {
		return fmt.Errorf("the client's DMB: %w", syscall.ENOENT)
	}
	stand, err := dmb.StandIn(a.lost)
	if err != nil {
		return err
	}
	a.peer, a.end = &remote{Attached: stand, inUse: make(chan struct{})}, end
	return nil
}

func (a *Attempt) confirmed(confirm *smc.AcceptConfirm) error {
	g := a.group
	err := a.dev.reflected(dmb.Token(confirm.Token), procs.Server)
	if err != nil {
		return err
	}
	if a.peer, err = a.dev.attach(dmb.Token(confirm.Token), confirm.DMBESize); err != nil {
		return err
	}
	if g.peer != 0 && a.peer.Owner() != g.peer {
		return fmt.Errorf("the client says it is process %d, its DMB is process %d's", g.peer, a.peer.Owner())
	}
	a.peer.group = g
	a.bit, a.deaf = confirm.Bit(), confirm.PageOnly()
	if confirm.FCE != nil && confirm.FCE.Page() != 0 {
		if err := g.page.join(dmb.Token(confirm.FCE.Page())); err != nil {
			return err
		}
	}
	if confirm.FCE == nil || confirm.FCE.Page() != 0 {
		a.pages = g.page.get()
	}
	if err := a.openBells(); err != nil {
		return err
	}
	if confirm.FCE != nil {
		g.describe(confirm.FCE.Host(), confirm.FCE.OSType, confirm.FCE.Page())
	}
	a.dev.mu.Lock()
	g.confirmed = g.peer != 0
	g.known = g.confirmed
	a.dev.mu.Unlock()
	return nil
}

// Open makes the connection, which owns everything from then on. slot describes it, and may be nil.
func (a *Attempt) Open(tcp *net.TCPConn, wait stream.Strategy, slot *dmb.Slot, info procs.Conn) (*stream.Conn, error) {
	info.Mode, info.LinkID = procs.SMCD, a.group.id
	info.Token, info.PeerToken = uint64(a.own.Token()), uint64(a.peer.Token())
	c, err := stream.New(stream.Link{
		Own: a.own.Registered, OwnBell: a.own.bell, Peer: a.peer.Attached, PeerBell: a.peer.bell,
		TCP: tcp, Process: a.dev.Process, Epoch: a.own.epoch, Wait: wait, Pages: a.pages, OwnBit: a.ownBit, PeerBit: a.bit,
		Slot: slot, Info: info, Release: a.release, Ended: a.end,
	})
	if err != nil {
		return nil, err
	}
	hold()
	count := dmb.ServerV2
	if a.group.role == procs.Client {
		count = dmb.ClientV2
	}
	a.dev.block.Add(count, 1)
	return c, nil
}

// release takes the DMBs of a connection back. They are reused if both sides have said that they write no more.
func (a *Attempt) release(reusable bool, received uint64) {
	d, g := a.dev, a.group
	reusable = reusable && a.lost == 0
	drop()
	g.uncount(a.own)
	d.mu.Lock()
	d.traffic.ended(received, time.Now())
	g.bits.give(a.ownBit)
	var garbage []closer
	if reusable && g.peer != 0 && g.usable() && a.own.epoch == g.epoch && len(g.pool) < mostPooled {
		g.pool = append(g.pool, a.own)
	} else {
		garbage = append(garbage, a.own)
	}
	if reusable && g.usable() {
		a.peer.rest()
	} else {
		garbage = append(garbage, d.forget(a.peer))
	}
	garbage = append(garbage, g.leave()...)
	d.mu.Unlock()
	closeAll(garbage)
}

// Abandon ends an attempt from which no connection has come.
func (a *Attempt) Abandon() {
	d := a.dev
	d.mu.Lock()
	var garbage []closer
	if a.peer != nil {
		garbage = append(garbage, d.forget(a.peer))
	}
	if a.own != nil {
		a.group.uncount(a.own)
		a.group.bits.give(a.ownBit)
		if a.told || !a.group.usable() || len(a.group.pool) == mostPooled {
			garbage = append(garbage, a.own)
		} else {
			a.group.pool = append(a.group.pool, a.own)
		}
	}
	if a.group != nil {
		garbage = append(garbage, a.group.leave()...)
	}
	d.mu.Unlock()
	closeAll(garbage)
}

// OutOfSync takes a Decline by which the client says that it does not know the link group.
func (a *Attempt) OutOfSync() { a.group.outOfSync() }

// Describe fills in what a connection's Info shows of the link.
func (a *Attempt) Describe() (group, peer uint32, eid smc.EID) {
	return a.group.id, a.peer.Owner(), a.agreed.EID
}
