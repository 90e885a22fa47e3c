// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/smc"
)

// Type is the kind of memory that DMBs get, the values of dmb_type.
type Type int

const (
	Physical Type = iota // the most contiguous pages that the kernel gives
	Virtual              // base pages
)

// State is whether a device takes part.
type State uint32

const (
	Inactive State = iota // nothing new, and what there was has been aborted
	Active
	Draining // nothing new, what lives goes on
)

func (s State) String() string {
	switch s {
	case Inactive:
		return "inactive"
	case Active:
		return "active"
	case Draining:
		return "draining"
	}
	return fmt.Sprintf("State(%d)", uint32(s))
}

// Config is what a device starts with.
type Config struct {
	GID      smc.GID // zero: drawn at random
	DMBType  Type
	DMBCopy  bool
	Limits   Limits
	Waiting  Waiting // how programs may wait, at most
	AdminUID uint32  // may turn the knobs without CAP_SYS_ADMIN, unless 0 (see privileged)
	Users    Users   // nil: nobody wants to know
	Log      *slog.Logger
}

// Users is told of the processes that have a block.
type Users interface {
	Enter() // one is about to have its own; the call for it is answered when this returns
	Leave() // it has exited, or got none; this must not wait
}

// nobody is told in place of no Users.
type nobody struct{}

func (nobody) Enter() {}
func (nobody) Leave() {}

// A Device is one loopback-ism device. All its methods may be called at once from many goroutines.
type Device struct {
	gid      smc.GID
	adminUID uint32
	self     Principal // the daemon's own
	started  time.Time
	log      *slog.Logger
	waiting  Waiting
	ueids    ueidTable
	users    Users

	mu           sync.Mutex // one lock: operations come by the thousand a second, data never comes here
	state        State
	epoch        uint64
	dmbType      Type
	dmbCopy      bool
	dmbs         map[Token]*DMB    // those with a name
	all          map[*DMB]struct{} // those with memory or a place in the table
	retired      retiredTokens
	lastSequence uint32
	quota        *quota
	processes    *processTable
	stats        statistics
	smallFolios  smallFolios

	watcher sync.WaitGroup
}

// New makes an active device.
func New(cfg Config) (*Device, error) {
	if cfg.GID == (smc.GID{}) {
		cfg.GID = NewGID()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Users == nil {
		cfg.Users = nobody{}
	}
	if err := checkProc(); err != nil {
		return nil, err
	}
	self, err := Caller{UID: uint32(os.Geteuid()), TID: uint32(os.Getpid())}.principal()
	if err != nil {
		return nil, fmt.Errorf("the daemon's own namespaces: %w", err)
	}
	// Ids start at random, so that those of two devices, or of two lives of one, are not taken for one another.
	processes, err := newProcessTable(rand.Uint32(), cfg.Limits.MaxProcesses())
	if err != nil {
		return nil, err
	}
	d := &Device{
		gid:       cfg.GID,
		adminUID:  cfg.AdminUID,
		self:      self,
		started:   time.Now(),
		log:       cfg.Log,
		waiting:   cfg.Waiting,
		ueids:     ueidTable{ueids: []string{DefaultUEID}},
		users:     cfg.Users,
		state:     Active,
		epoch:     1,
		dmbType:   cfg.DMBType,
		dmbCopy:   cfg.DMBCopy,
		dmbs:      make(map[Token]*DMB),
		all:       make(map[*DMB]struct{}),
		quota:     newQuota(cfg.Limits),
		processes: processes,
	}
	d.watcher.Go(d.watchProcesses)
	return d, nil
}

// Close ends the device's own activity and frees its memory. The memory that clients have mapped stays theirs.
func (d *Device) Close() {
	d.processes.wakeWatcher()
	d.watcher.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for m := range d.all {
		if m.mem != nil {
			unix.Close(m.mem.fd) // not freed: after the daemon's end mappings and handles go on
		}
	}
	for _, p := range d.processes.byID {
		if p.block != nil && p.block.mem != nil {
			unix.Close(p.block.mem.fd)
		}
		unix.Close(p.pidfd)
	}
	d.processes.closeFDs()
}

// LookupDMB finds a DMB by its token; nil if there is none. To know the token is to be allowed to ask.
func (d *Device) LookupDMB(t Token) *DMB {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dmbs[t]
}

// ListDMBs returns the DMBs that are the caller's to see: its own principal's, or all if it is privileged.
func (d *Device) ListDMBs(c Caller) ([]*DMB, error) {
	pid, who, err := c.identify()
	if err != nil {
		return nil, err
	}
	all := d.privileged(who)
	d.mu.Lock()
	defer d.mu.Unlock()
	owners := make(map[*Process]bool) // looked up once each: a process can have thousands of DMBs
	var list []*DMB
	for _, m := range d.dmbs {
		if all || m.belongsToOneOf(owners, pid, who) {
			list = append(list, m)
		}
	}
	return list, nil
}

// belongsToOneOf is belongsTo with a memory of the processes that have been looked up. The lock is held.
func (m *DMB) belongsToOneOf(owners map[*Process]bool, pid int, who Principal) bool {
	if !m.Leased {
		return m.belongsTo(pid, who)
	}
	own, known := owners[m.process]
	if !known {
		own = m.belongsTo(pid, who)
		owners[m.process] = own
	}
	return own
}

// CheckPrivileged returns EPERM unless the caller may turn knobs and see everything.
func (d *Device) CheckPrivileged(c Caller) error {
	who, err := c.principal()
	if err != nil {
		return err
	}
	if !d.privileged(who) {
		return unix.EPERM
	}
	return nil
}

// privileged is who has CAP_SYS_ADMIN in the daemon's user namespace, or the uid for which the device was mounted, as long
// as that is not 0: root without the capability is the root of some container. For the same reason that uid counts only in
// the daemon's own namespaces.
func (d *Device) privileged(p Principal) bool {
	if p.userNS != d.self.userNS {
		return false
	}
	if p.acting&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return true
	}
	return d.adminUID != 0 && p.UID == d.adminUID && p.pidNS == d.self.pidNS
}

// holdMemory makes sure that there is memory to open: the reservation of something that has no size yet. The lock is held.
func (d *Device) holdMemory(mem **memory, uid uint32, most int64) error {
	if *mem != nil {
		return nil
	}
	n, err := d.quota.reserve(uid, most)
	if err != nil {
		return err
	}
	m, err := newMemory(uid, n)
	if err != nil {
		d.quota.keep(uid, n, 0)
		return err
	}
	*mem = m
	return nil
}

// fixMemory gives memory its final size, whether or not it is open. The lock is held.
func (d *Device) fixMemory(mem **memory, uid uint32, size int64) error {
	if *mem == nil {
		if err := d.quota.addBytes(uid, size); err != nil {
			return err
		}
		m, err := newMemory(uid, size)
		if err == nil {
			err = m.fix(size)
		}
		if err != nil {
			d.quota.removeBytes(uid, size)
			return err
		}
		*mem = m
		return nil
	}
	m := *mem
	if size > m.held {
		return unix.ENOMEM
	}
	if err := m.fix(size); err != nil {
		return err
	}
	d.quota.keep(uid, m.held, size)
	m.held = size
	return nil
}

// dropMemory frees memory, sized or not. The lock is held.
func (d *Device) dropMemory(mem **memory) {
	m := *mem
	if m == nil {
		return
	}
	*mem = nil
	if m.size != 0 {
		d.quota.removeBytes(m.uid, m.held)
	} else {
		d.quota.keep(m.uid, m.held, 0)
	}
	if err := m.free(); err != nil {
		d.log.Warn("cannot give back a memfd's pages", "bytes", m.held, "err", err)
	}
}

// A look is an open descriptor of somebody who may see a memory and does not keep it alive: what is freed meanwhile reads as
// zeros.
type look struct {
	fd      int
	uid     uint32
	counted bool
}

// newLook opens a look. The lock is held. Error: ENFILE.
func (d *Device) newLook(m *memory, who Principal) (*look, error) {
	l := &look{uid: who.UID, counted: !d.privileged(who)}
	if l.counted {
		if err := d.quota.addLook(l.uid); err != nil {
			return nil, err
		}
	}
	var err error
	if l.fd, err = m.dup(); err != nil {
		d.dropLook(l)
		return nil, err
	}
	return l, nil
}

func (d *Device) endLook(l *look) {
	unix.Close(l.fd)
	d.dropLook(l)
}

func (d *Device) dropLook(l *look) {
	if l.counted {
		d.quota.removeLook(l.uid)
	}
}
