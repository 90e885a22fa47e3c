// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Version is that of the maps' layout and the set's directory. Sets of two versions cannot live side by side: each would answer
// SYNs for listeners that ask the other. Programs of the same version replace each other in place. The socket option has a
// version of its own, the last byte of [smcopt.Name].
const Version = 2

// Names in a set's directory, and of the programs in the kernel.
const (
	sockopsName = ismfsProgIsmfsSockops

	marksName    = ismfsMapIsmfsMarks
	tagsName     = ismfsMapIsmfsTags
	answeredName = ismfsMapIsmfsAnswered
	stateName    = ismfsMapIsmfsState
)

// An attachment is one of the programs, and where.
type attachment struct {
	program string
	at      ebpf.AttachType
}

// attachments in the order of attaching: no socket can ask before all the rest is there. Removal is in the reverse order.
var attachments = []attachment{
	{ismfsProgIsmfsSockops, ebpf.AttachCGroupSockOps},
	{ismfsProgIsmfsGetsockopt, ebpf.AttachCGroupGetsockopt},
	{ismfsProgIsmfsSetsockopt, ebpf.AttachCGroupSetsockopt},
}

var mapNames = []string{marksName, tagsName, answeredName, stateName}

// Below base(). What is being made or removed has a name of its own, so that a set has everything or does not exist.
const (
	makingName   = "making"
	removingName = "removing"
)

func (h host) set() string               { return filepath.Join(h.base(), fmt.Sprintf("v%d", Version)) }
func (h host) devices() string           { return filepath.Join(h.set(), "devices") }
func mapPin(dir, name string) string     { return filepath.Join(dir, "maps", name) }
func linkPin(dir, program string) string { return filepath.Join(dir, "links", program) }

// spec returns the programs as they are loaded on this host.
func (h host) spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadIsmfs()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[ismfsVarOptionName].Set(h.option); err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	safe := safeOutstanding(spec.Maps[answeredName].MaxEntries, cpus)
	if err := spec.Variables[ismfsVarSafeOutstanding].Set(safe); err != nil {
		return nil, err
	}
	spec.Programs[sockopsName].Name = h.program
	delete(spec.Programs, ismfsProgIsmfsSockets)
	delete(spec.Programs, ismfsProgIsmfsTaskSockets)
	return spec, nil
}

// load puts programs and maps into the kernel, with the maps given in place of new ones.
func (h host) load(maps map[string]*ebpf.Map) (*ebpf.Collection, error) {
	spec, err := h.spec()
	if err != nil {
		return nil, err
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	var rejected *ebpf.VerifierError
	switch {
	case err != nil && !mayLoad():
		return nil, fmt.Errorf("%w: it takes CAP_SYS_ADMIN in the initial user namespace (run as root): %w", ErrNotPermitted, err)
	case errors.As(err, &rejected) && !errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w: its verifier rejects them: %w", ErrNotSupported, err)
	case err != nil:
		return nil, typed(fmt.Errorf("loading the programs: %w", err))
	}
	return c, nil
}

// mayLoad makes a map that takes the privilege. Without it cilium/ebpf takes the kernel's refusals for lacks of the kernel.
func mayLoad() bool {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err == nil {
		m.Close()
	}
	return !errors.Is(err, os.ErrPermission)
}

// join opens the set, or makes it. The lock is held.
func (h host) join() (tags *ebpf.Map, err error) {
	for _, junk := range []string{makingName, removingName} {
		if err := os.RemoveAll(filepath.Join(h.base(), junk)); err != nil {
			return nil, err
		}
	}
	_, err = os.Stat(h.set())
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := h.noOtherSet(); err != nil {
			return nil, err
		}
		return h.create()
	case err != nil:
		return nil, err
	}
	return h.open()
}

// create loads, attaches and pins a set.
func (h host) create() (tags *ebpf.Map, err error) {
	c, err := h.load(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()

	dir := filepath.Join(h.base(), makingName)
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	for _, d := range []string{"maps", "links", "devices"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	for _, name := range mapNames {
		if err := c.Maps[name].Pin(mapPin(dir, name)); err != nil {
			return nil, fmt.Errorf("pinning map %s: %w", name, err)
		}
	}
	for _, a := range attachments {
		if err := h.attachOne(c.Programs[a.program], a.at, linkPin(dir, a.program)); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(dir, h.set()); err != nil {
		return nil, err
	}
	return c.Maps[tagsName].Clone()
}

// attachOne attaches beside whatever other programs are there.
func (h host) attachOne(p *ebpf.Program, at ebpf.AttachType, pin string) error {
	l, err := link.AttachCgroup(link.CgroupOptions{Path: h.cgroup, Attach: at, Program: p})
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: attaching %v to cgroup %s: a program that suffers no other beside it may be attached there (bpftool cgroup show %[3]s): %w",
			ErrNotPermitted, at, h.cgroup, err)
	case err != nil:
		return typed(fmt.Errorf("attaching %v to cgroup %s: %w", at, h.cgroup, err))
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return typed(fmt.Errorf("pinning the link of %v: %w", at, err))
	}
	return nil
}

// open opens a set that is there, attaches what of it is not, and puts this build's programs into it if they differ. Maps stay.
func (h host) open() (*ebpf.Map, error) {
	maps := make(map[string]*ebpf.Map)
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	for _, name := range mapNames {
		m, err := ebpf.LoadPinnedMap(mapPin(h.set(), name), nil)
		if err != nil {
			return nil, h.damaged(err)
		}
		maps[name] = m
	}
	current, err := h.current()
	if err != nil {
		return nil, err
	}
	if !current {
		if err := h.update(maps); err != nil {
			return nil, fmt.Errorf("putting the programs into %s: %w", h.set(), err)
		}
	}
	return maps[tagsName].Clone()
}

func (h host) damaged(err error) error {
	return fmt.Errorf("the programs' set in %s is damaged (%w): when no connection needs it, remove it with rm -r %[1]s", h.set(), err)
}

// current reports whether the attached programs are those of this build, and where they should be.
func (h host) current() (bool, error) {
	spec, err := h.spec()
	if err != nil {
		return false, err
	}
	for _, a := range attachments {
		same, err := h.sameProgram(a.program, spec.Programs[a.program])
		if errors.Is(err, errDetached) {
			return false, nil
		}
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// errDetached: a program of the set is not attached, as all are while nobody uses them.
var errDetached = errors.New("not attached")

// linkInfo describes a link of the set, or returns errDetached.
func (h host) linkInfo(name string) (*link.Info, *link.CgroupInfo, error) {
	l, err := link.LoadPinnedLink(linkPin(h.set(), name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, errDetached
	}
	if err != nil {
		return nil, nil, h.damaged(err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return nil, nil, typed(err)
	}
	cgroup := info.Cgroup()
	if cgroup == nil || cgroup.CgroupId == 0 {
		return nil, nil, errDetached
	}
	return info, cgroup, nil
}

// rootCgroupID is the id of the root of the cgroup v2 hierarchy, whatever cgroup namespace one is in.
const rootCgroupID = 1

// attachedToRoot reports whether the set sees the sockets of the whole host. It may have been made by a daemon that sees more
// of the hierarchy than this one.
func (h host) attachedToRoot() (bool, error) {
	_, cgroup, err := h.linkInfo(sockopsName)
	return err == nil && cgroup.CgroupId == rootCgroupID, err
}

func (h host) sameProgram(name string, spec *ebpf.ProgramSpec) (bool, error) {
	info, cgroup, err := h.linkInfo(name)
	if err != nil || h.misplaced(cgroup) {
		return false, err
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return false, typed(err)
	}
	defer p.Close()
	loaded, err := p.Info()
	if err != nil {
		return false, typed(err)
	}
	return spec.Compatible(loaded) == nil, nil
}

// update attaches this build's programs: in place of those that are attached, or anew.
func (h host) update(maps map[string]*ebpf.Map) error {
	if _, _, err := h.linkInfo(sockopsName); errors.Is(err, errDetached) {
		if err := h.noOtherAttached(); err != nil { // one can have come meanwhile
			return err
		}
	}
	c, err := h.load(maps)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, a := range attachments {
		if err := h.put(c.Programs[a.program], a, maps[stateName]); err != nil {
			return err
		}
	}
	return nil
}

// misplaced reports whether a program is attached for less than this daemon sees: by one of a container, while the set rested.
func (h host) misplaced(cgroup *link.CgroupInfo) bool {
	var root unix.Stat_t // whose inode number is its id
	return h.wholeHost && unix.Stat(h.cgroup, &root) == nil && cgroup.CgroupId != root.Ino
}

func (h host) put(p *ebpf.Program, a attachment, state *ebpf.Map) error {
	pin := linkPin(h.set(), a.program)
	_, cgroup, err := h.linkInfo(a.program)
	if err == nil && h.misplaced(cgroup) {
		if err := doubt(state); err != nil {
			return err
		}
		if err := h.detach(a); err != nil { // first: two at once would not agree on what the option says
			return err
		}
		err = errDetached
	}
	if errors.Is(err, errDetached) {
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := h.attachOne(p, a.at, pin); err != nil {
			return err
		}
		return doubtIfOutstanding(state)
	}
	if err != nil {
		return err
	}
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Update(p)
}
