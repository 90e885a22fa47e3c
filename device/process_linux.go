// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A Process is one process that owns a leased DMB, is attached to one, or has asked for its id. Its life is its pidfd: a
// pid comes back, and a handle that a child inherited outlives the process that opened it.
type Process struct {
	ID  uint32 // this device's name for it, never given twice
	PID int    // in the daemon's pid namespace

	pidfd int
	uid   uint32 // when it was first seen

	// The device's lock protects what follows.
	gone  bool
	dmbs  map[*DMB]struct{} // that it owns or is attached to
	block *block            // its procs block, if it has made one
}

// maxProcessID bounds the ids: 30 bits, so that an inode number has room for more (see inode numbers in package fs).
const maxProcessID = 1<<30 - 1

// processTable knows the processes by pid and by id. The device's lock protects the maps.
type processTable struct {
	byPID  map[int]*Process
	byID   map[uint32]*Process
	lastID uint32
	most   int // records: each has a descriptor, and they must not take those of the DMBs
	epfd   int // of all pidfds; the event's Pad and Fd carry the process's id
	wakefd int // readable: close down
}

func newProcessTable(firstID uint32, most int) (*processTable, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	t := &processTable{
		byPID:  make(map[int]*Process),
		byID:   make(map[uint32]*Process),
		lastID: firstID % maxProcessID,
		most:   most,
		epfd:   epfd,
		wakefd: wakefd,
	}
	if err := unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wakefd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.closeFDs()
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return t, nil
}

func (t *processTable) closeFDs() {
	unix.Close(t.epfd)
	unix.Close(t.wakefd)
}

// find returns the process that the caller's thread belongs to, nil if it is not known yet. A record whose process has
// exited but whose exit is not handled yet is not returned: its pid may be somebody else's by now.
func (t *processTable) find(pid int) *Process {
	p := t.byPID[pid]
	if p == nil || p.exited() {
		return nil
	}
	return p
}

// exited reports whether all threads of the process are gone. The lock is held: the pidfd is closed with gone set.
func (p *Process) exited() bool {
	if p.gone {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// principal looks up in whose name the process acts now. The lock is held.
func (p *Process) principal() (Principal, error) {
	uid, err := p.owner()
	if err != nil {
		return Principal{}, err
	}
	who, err := Caller{UID: uid, TID: uint32(p.PID)}.principal()
	if err == nil && p.exited() { // else the pid may have been somebody else's by now
		err = unix.ESRCH
	}
	return who, err
}

// belongsTo reports whether the process is the caller's own: itself, or one that the caller could ptrace now. The lock is held.
func (p *Process) belongsTo(pid int, who Principal) bool {
	if p.PID == pid && !p.exited() {
		return true
	}
	owner, err := p.principal()
	return err == nil && who.mayTouch(owner)
}

// add makes a record of a process. The caller of the operation at hand is one of its threads, so the pid is its own.
// Error: ENFILE the table is full.
func (t *processTable) add(pid int, uid uint32) (*Process, error) {
	if len(t.byID) >= t.most {
		return nil, fmt.Errorf("%d processes use the device: %w", len(t.byID), unix.ENFILE)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open of process %d: %w", pid, err)
	}
	p := &Process{ID: t.nextID(), PID: pid, pidfd: pidfd, uid: uid, dmbs: make(map[*DMB]struct{})}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.ID)}
	if err := unix.EpollCtl(t.epfd, unix.EPOLL_CTL_ADD, pidfd, &ev); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	t.byPID[pid] = p
	t.byID[p.ID] = p
	return p, nil
}

func (t *processTable) nextID() uint32 {
	for {
		t.lastID = t.lastID%maxProcessID + 1
		if t.byID[t.lastID] == nil {
			return t.lastID
		}
	}
}

func (t *processTable) remove(p *Process) {
	delete(t.byID, p.ID)
	if t.byPID[p.PID] == p {
		delete(t.byPID, p.PID)
	}
	unix.EpollCtl(t.epfd, unix.EPOLL_CTL_DEL, p.pidfd, nil)
	unix.Close(p.pidfd)
}

// waitExits blocks until processes have exited and returns their ids. ok is false when the table closes down.
func (t *processTable) waitExits(buf []uint32) (ids []uint32, ok bool) {
	var events [64]unix.EpollEvent
	n, err := unix.EpollWait(t.epfd, events[:], -1)
	if err != nil && err != unix.EINTR {
		return nil, false
	}
	ids = buf[:0]
	for _, ev := range events[:max(n, 0)] {
		if ev.Fd == 0 {
			return nil, false
		}
		ids = append(ids, uint32(ev.Fd))
	}
	return ids, true
}

func (t *processTable) wakeWatcher() {
	unix.Write(t.wakefd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}
