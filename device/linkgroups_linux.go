// SPDX-License-Identifier: Apache-2.0

package device

import (
	"github.com/ismfs/ismfs/procs"
)

// GroupInfo describes a link group. What its process says of it stands in Group, but for the peer process: that is zero
// unless the device knows of a DMB between the two. The rest is the device's.
type GroupInfo struct {
	procs.Group
	ProcessID uint32
	PID       int
	UID       uint32
	PeerPID   int   // 0: unknown
	Conns     int   // SMC-D connections that the process says are of this group
	Bytes     int64 // of the own DMBs that the peer process has attached, whether or not a connection uses them
}

// LinkGroups describes the link groups of the processes that are the caller's to see, those of one process together.
func (d *Device) LinkGroups(c Caller) ([]GroupInfo, error) {
	pid, who, err := c.identify()
	if err != nil {
		return nil, nil // whom the daemon cannot see has nothing to see here
	}
	var list []GroupInfo
	err = d.describe(pid, who, func(p *described) {
		if len(p.groups) > 0 {
			list = append(list, d.inspectGroups(p)...)
		}
	})
	return list, err
}

// inspectGroups adds what the device knows to what a process says; nothing if the process has exited.
func (d *Device) inspectGroups(p *described) []GroupInfo {
	list := make([]GroupInfo, len(p.groups))
	byID := make(map[uint32]*GroupInfo)   // of link groups
	byPeer := make(map[uint32]*GroupInfo) // the first group with a process
	for i, g := range p.groups {
		list[i] = GroupInfo{Group: *g, ProcessID: p.process.ID, PID: p.process.PID, UID: p.uid}
		byID[g.ID] = &list[i]
		if byPeer[g.Peer] == nil {
			byPeer[g.Peer] = &list[i]
		}
	}
	group := make(map[Token]*GroupInfo) // of the own DMBs that connections use
	for _, c := range p.conns {
		if g := byID[c.LinkID]; g != nil && c.Mode == procs.SMCD {
			g.Conns++
			group[Token(c.Token)] = g
		}
	}
	if !d.inspectPeers(p.process, list, byPeer, group) {
		return nil
	}
	return list
}

// inspectPeers looks at the DMBs between a process and the peers of its groups.
func (d *Device) inspectPeers(p *Process, list []GroupInfo, byPeer map[uint32]*GroupInfo, group map[Token]*GroupInfo) (alive bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.exited() {
		return false
	}
	pids := make(map[uint32]int) // of the processes with which p shares a DMB
	for m := range p.dmbs {
		if m.attached == 0 || m.process == nil {
			continue
		}
		if m.peer == p {
			pids[m.process.ID] = m.process.PID
		}
		if m.process != p {
			continue
		}
		pids[m.peer.ID] = m.peer.PID
		g := group[m.Token]
		if g == nil || g.Peer != m.peer.ID { // kept for the next connection, of whichever group between the two
			g = byPeer[m.peer.ID]
		}
		if g != nil && m.size != doorbellPageSize {
			g.Bytes += m.size
		}
	}
	for i := range list {
		g := &list[i]
		if g.PeerPID = pids[g.Peer]; g.PeerPID == 0 {
			g.Peer = 0
		}
	}
	return true
}
