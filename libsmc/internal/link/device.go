// SPDX-License-Identifier: Apache-2.0

// Package link is this process at a loopback-ism device: the device that it uses, and its link groups there with the DMBs and
// doorbell pages that they keep.
//
// A link group is between two processes, in one role: the kernel's is between two hosts, but on one host all have the same
// GID. What a peer says of itself, its procs id, is a hint: it counts once the device has confirmed it as the owner of the
// DMB that the peer told.
package link

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/libsmc/internal/stream"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// blockSize is the size of this process's procs block: room for 8,176 slots, of which only those used take memory.
const blockSize = 1 << 20

// A Device is a mounted device as this process uses it.
type Device struct {
	GID     smc.GID
	Tag     smcopt.Tag
	Process *stream.Process

	tree  *tree.Device
	block *dmb.Block
	turns chan struct{} // to register: see mostRegistering
	dead  atomic.Bool   // its daemon has gone, or another device is mounted in its place
	at    uint64        // the file system at the mount point when it was last seen to be the device's; under the finder's lock
	heard atomic.Int64  // when it answered last, in nanoseconds since start

	mu      sync.Mutex
	servers map[uint32]*Group        // by the peer's procs id, groups in which this process is the server
	clients map[clientKey]*Group     // groups in which it is the client
	remotes map[dmb.Token]*remote    // peers' DMBs that this process is attached to
	own     map[dmb.Token]procs.Role // this process's DMBs, in which role it uses them
	users   int                      // of all groups: connections and handshakes
	traffic traffic                  // what connections of late have carried
	watched bool                     // watch runs
	lastID  uint32                   // link group id given last
	eids    []smc.EID                // what ueid said when the device word was eidsAt
	eidsAt  uint32
	hasEIDs bool
}

// A clientKey finds a client's group: the server's process, and the link group's id there.
type clientKey struct {
	process, id uint32
}

// open makes this process known to a device.
func open(t *tree.Device) (*Device, error) {
	at, err := t.FileSystem() // before anything is read: what is mounted meanwhile is another one
	if err != nil {
		return nil, err
	}
	text, err := t.GID()
	if err != nil {
		return nil, err
	}
	gid, err := smc.ParseGID(text)
	if err != nil {
		return nil, fmt.Errorf("gid of %s: %w", t.Point(), err)
	}
	block, err := dmb.OpenBlock(t, blockSize)
	if err != nil {
		return nil, err
	}
	return &Device{
		GID: gid, Tag: smcopt.TagOf(gid), Process: stream.NewProcess(block), tree: t, block: block, at: at,
		turns:   make(chan struct{}, mostRegistering),
		servers: make(map[uint32]*Group), clients: make(map[clientKey]*Group), remotes: make(map[dmb.Token]*remote),
		own:    make(map[dmb.Token]procs.Role),
		lastID: randomID(),
	}, nil
}

// Local is what this process brings to a handshake now.
func (d *Device) Local() (smc.Local, error) {
	eids, err := d.ueids()
	if err != nil {
		return smc.Local{}, d.noted(err)
	}
	return smc.Local{
		GID: d.GID, CHID: smc.CHIDLoopback, Active: d.Active(), UEIDs: eids,
		Release: smc.Release, Features: smc.FeatureEmulatedISM,
	}, nil
}

// Active reports whether the device takes new connections.
func (d *Device) Active() bool { return !d.dead.Load() && d.block.State() == dmb.Active }

// ErrOff says why a device that is not active takes no new connections.
func (d *Device) ErrOff() error {
	what := "is switched off"
	if d.block.State() == dmb.Draining {
		what = "is draining"
	}
	return fmt.Errorf("the device at %s %s: echo 1 > %s/active", d.Point(), what, d.tree.Dir())
}

// ID returns this process's procs id.
func (d *Device) ID() uint32 { return d.block.ID() }

// Point returns the mount point.
func (d *Device) Point() string { return d.tree.Point() }

// ueids returns the table of user EIDs. The device moves its word when the table changes.
func (d *Device) ueids() ([]smc.EID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	word := d.block.Word() // before reading: a change in between is read again
	if d.hasEIDs && word == d.eidsAt {
		return d.eids, nil
	}
	names, err := d.tree.UEIDs()
	if err != nil {
		return nil, err
	}
	d.eids = nil
	for _, n := range names {
		e, err := smc.ParseEID(n)
		if err != nil {
			return nil, err
		}
		d.eids = append(d.eids, e)
	}
	d.hasEIDs, d.eidsAt = true, word
	return d.eids, nil
}

// noted looks whether an error says that the daemon is gone, and returns it.
func (d *Device) noted(err error) error {
	if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) {
		d.dead.Store(true)
	}
	return err
}

// isMounted reports whether the device is at its mount point still, and answers; also if this process lacks what it takes to look.
func (d *Device) isMounted() bool {
	at, err := d.tree.FileSystem()
	if err == nil {
		var gid string
		gid, err = d.tree.GID()
		if err == nil && gid == d.GID.String() {
			d.at = at
			return true
		}
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) {
		return true
	}
	d.dead.Store(true)
	return false
}

// checkMount is isMounted where something else is at the mount point than was before: without asking the daemon otherwise.
func (d *Device) checkMount() {
	if at, err := d.tree.FileSystem(); err != nil || at != d.at {
		d.isMounted()
	}
}

// livenessTime is for how long an answer of the daemon's says that it lives. Its death is told to nobody; DMBs that are reused
// need it for nothing else, and without it connections would come about that no knob reaches.
const livenessTime = 100 * time.Millisecond

var start = time.Now()

func (d *Device) answered() { d.heard.Store(int64(time.Since(start))) }

func (d *Device) answeredLately() bool {
	return time.Since(start)-time.Duration(d.heard.Load()) < livenessTime
}

// CountFallback counts a connection that stays TCP.
func (d *Device) CountFallback(r procs.Role, code smc.DeclineCode) { d.block.AddFallback(r, code) }

// CountHandshakeError counts a handshake that failed hard.
func (d *Device) CountHandshakeError(r procs.Role) { d.block.AddHandshakeError(r) }

// NewSlot returns a place to describe a connection or a listener in, nil if there is none: it is not listed then.
func (d *Device) NewSlot() *dmb.Slot {
	s, err := d.block.NewSlot()
	if err != nil {
		return nil
	}
	return s
}

// Reason is the decline code for an error of a device's operation (smc_buf_create, smcd_new_buf_create).
func Reason(err error) smc.DeclineCode {
	var code smc.DeclineCode
	switch {
	case errors.As(err, &code):
		return code
	case errors.Is(err, syscall.ENOSPC):
		return smc.DeclMaxDMB
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		return smc.DeclNoSMCDev
	}
	return smc.DeclMem
}
