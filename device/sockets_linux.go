// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
)

// Of a connection on TCP a process may say no more than its descriptor and its peer, which takes no system call. What else its
// line shows is found here when somebody reads it. All of it is read from /proc, where nothing waits for a process or for a file
// system: a link there is told without a look at what it leads to.

// mostFound bounds how many connections of a process are looked for by their descriptors; smc_run describes no more so.
const mostFound = 4096

// mostTables bounds in how many network namespaces the tables of connections are read for the processes of one uid. The kernel walks
// the table of all the host's connections for each, and who lists waits for it: some 10 ms.
const mostTables = 64

// canFindSockets reports whether the daemon may look at the descriptors of a process. Each process that uses connections waits for
// the answer once, so it takes two calls: who may see its namespaces may read the links, too.
func canFindSockets(pid int) bool {
	task, netNS := taskOf(pid)
	return netNS != 0 && unix.Faccessat(unix.AT_FDCWD, task+"/fd", unix.R_OK|unix.X_OK, unix.AT_EACCESS) == nil
}

// taskOf returns where /proc shows a thread of a process with its descriptors, and the network namespace that this one is in, 0 if it
// cannot be asked: the leader, unless that has ended before the others. It is a path below the process, where no thread of another one
// appears if this one's number is given again.
func taskOf(pid int) (task string, netNS uint64) {
	tasks := "/proc/" + strconv.Itoa(pid) + "/task/"
	leader := tasks + strconv.Itoa(pid)
	netNS, err := namespaceIn(leader, "net")
	if !errors.Is(err, fs.ErrNotExist) {
		return leader, netNS
	}
	threads, err := os.ReadDir(tasks)
	if err != nil { // it has just exited
		return leader, 0
	}
	for _, t := range threads {
		if netNS, err := namespaceIn(tasks+t.Name(), "net"); err == nil {
			return tasks + t.Name(), netNS
		}
	}
	return leader, 0
}

// findInodes notes of the connections that a process has described by their descriptors which sockets these are, and leaves out those
// that are none, or that a slot says all of. barred: the daemon may not look any more.
func (p *described) findInodes() (barred bool) {
	listed := map[uint64]bool{0: true}
	for _, c := range p.conns {
		if c.Descriptor == 0 {
			listed[c.Inode] = true
		}
	}
	looked := 0
	p.conns = slices.DeleteFunc(p.conns, func(c *procs.Conn) bool {
		if c.Descriptor == 0 {
			return false
		}
		if barred || looked == mostFound {
			return true
		}
		looked++
		inode, err := p.socketAt(c.Descriptor)
		barred = errors.Is(err, fs.ErrPermission)
		known := listed[inode]
		listed[inode] = true
		c.Inode = inode
		return known
	})
	return barred
}

// has reports whether a process has the connection that was found by a descriptor.
func (p *described) has(c *procs.Conn) bool {
	inode, err := p.socketAt(c.Descriptor)
	return err == nil && inode == c.Inode
}

// socketAt returns the inode of the socket that a slot's descriptor is, 0 if it is none.
func (p *described) socketAt(descriptor uint32) (uint64, error) {
	link, err := os.Readlink(p.task + "/fd/" + strconv.FormatUint(uint64(descriptor-1), 10))
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, nil
	}
	return strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
}

// findAddresses fills in the connections of which findInodes has noted the sockets, and leaves out those that are none on TCP, or not
// in the network namespace of their process. The tables of a namespace are read once for all who are there.
func findAddresses(list []*described) {
	there := make(map[uint64][]*described) // by the namespace
	for _, p := range list {
		if slices.ContainsFunc(p.conns, func(c *procs.Conn) bool { return c.Descriptor != 0 }) {
			there[p.netNS] = append(there[p.netNS], p)
		}
	}
	read := make(map[uint32]int) // by the uid
	for _, netNS := range slices.Sorted(maps.Keys(there)) {
		inodes := inodesOf(there[netNS])
		var found map[uint64]tcpSocket
		for _, p := range there[netNS] {
			if read[p.uid] == mostTables {
				continue
			}
			read[p.uid]++
			if found = p.findTCP(inodes); found != nil {
				break
			}
		}
		for _, p := range there[netNS] {
			p.fill(found)
		}
	}
}

// inodesOf returns the sockets that are looked for.
func inodesOf(list []*described) map[uint64]bool {
	inodes := make(map[uint64]bool)
	for _, p := range list {
		for _, c := range p.conns {
			if c.Descriptor != 0 {
				inodes[c.Inode] = true
			}
		}
	}
	return inodes
}

// findTCP returns those of some sockets that are connections in the process's network namespace; nil if it cannot tell. It asks
// afterwards whether that is the process's still: tables that were read by one that has exited or moved can be another one's.
func (p *described) findTCP(inodes map[uint64]bool) map[uint64]tcpSocket {
	found, err := readTables(os.DirFS(p.task+"/net"), inodes)
	if err != nil {
		return nil
	}
	if netNS, err := namespaceIn(p.task, "net"); err != nil || netNS != p.netNS {
		return nil
	}
	return found
}

// fill fills in what the kernel says. The peer, too: a program of eBPF can have led the connection elsewhere than its process
// asked for.
func (p *described) fill(found map[uint64]tcpSocket) {
	p.conns = slices.DeleteFunc(p.conns, func(c *procs.Conn) bool {
		if c.Descriptor == 0 {
			return false
		}
		s, ok := found[c.Inode]
		c.Local, c.Peer = s.local, s.peer
		if c.Local.Addr().Is4In6() && c.Peer.Addr().Is4In6() {
			c.Local, c.Peer = unmapped(c.Local), unmapped(c.Peer)
		}
		return !ok
	})
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
