// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/ismfs/ismfs/procs"
)

// Of a connection on TCP a process may say no more than its descriptor and its peer, which takes no system call. What else its
// line shows is found here when somebody reads it. All of it is read from /proc, where nothing waits for a process or for a file
// system: a link there is told without a look at what it leads to.

// A tcpSocket is a TCP connection as the kernel lists it.
type tcpSocket struct{ local, peer netip.AddrPort }

// A socketFinder finds the sockets of one listing.
type socketFinder struct {
	tables map[uint64]*socketTable // by the network namespace
}

// canFindSockets reports whether the daemon may look at the descriptors of a process, and at its namespace's connections.
func canFindSockets(pid int) bool {
	dir, err := os.Open(procPath(pid, "fd"))
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if err != nil {
		return false
	}
	if _, err := os.Readlink(procPath(pid, "fd/"+names[0])); err != nil {
		return false
	}
	f, err := os.Open(procPath(pid, "net/tcp"))
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// find fills in the connections that a process has described by their descriptors, and leaves out those that are not, or no
// longer, what it says.
func (f *socketFinder) find(p *described) {
	found, seen := p.conns[:0], make(map[uint32]bool)
	for _, c := range p.conns {
		if c.Descriptor == 0 {
			found = append(found, c)
			continue
		}
		if !seen[c.Descriptor] && f.fill(p, c) {
			seen[c.Descriptor] = true
			found = append(found, c)
		}
	}
	p.conns = found
}

func (f *socketFinder) fill(p *described, c *procs.Conn) bool {
	inode := socketInode(p.process.PID, c.Descriptor-1)
	if inode == 0 || p.netNS == 0 { // 0: it has just exited
		return false
	}
	s, ok := f.look(p, inode)
	if !ok || s.peer != c.Peer && s.peer != mapped(c.Peer) {
		return false
	}
	c.Local, c.Peer, c.Inode = s.local, s.peer, inode
	if c.Local.Addr().Is4In6() && c.Peer.Addr().Is4In6() {
		c.Local, c.Peer = unmapped(c.Local), unmapped(c.Peer)
	}
	return true
}

func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// socketInode returns the inode of the socket that is a process's descriptor, 0 if it is none.
func socketInode(pid int, fd uint32) uint64 {
	link, err := os.Readlink(procPath(pid, "fd/"+strconv.FormatUint(uint64(fd), 10)))
	if err != nil {
		return 0
	}
	number, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	if err != nil {
		return 0
	}
	return inode
}

// tcpTables are read one after the other until a socket is found. Twice: the kernel hands a table over in pieces, and where one
// ends can pass over a connection if another one goes just then.
var tcpTables = [...]string{"net/tcp", "net/tcp6", "net/tcp", "net/tcp6"}

// A socketTable has the connections of a network namespace, as far as they were read.
type socketTable struct {
	sockets map[uint64]tcpSocket // by their inodes
	read    int                  // of tcpTables
}

func (f *socketFinder) look(p *described, inode uint64) (tcpSocket, bool) {
	t := f.tables[p.netNS]
	if t == nil {
		t = &socketTable{sockets: make(map[uint64]tcpSocket)}
		if f.tables == nil {
			f.tables = make(map[uint64]*socketTable)
		}
		f.tables[p.netNS] = t
	}
	for {
		s, ok := t.sockets[inode]
		if ok || t.read == len(tcpTables) {
			return s, ok
		}
		text, err := os.ReadFile(procPath(p.process.PID, tcpTables[t.read]))
		if err == nil { // ENOENT: no IPv6 here, or the process has just exited
			readTCP(text, t.sockets)
		}
		t.read++
	}
}

// readTCP adds the connections that the text of /proc/net/tcp or tcp6 lists: whose handshake is over, and that are not closed.
func readTCP(text []byte, t map[uint64]tcpSocket) {
	const number, local, peer, state, inode = 0, 1, 2, 3, 9
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) <= inode || f[number][0] < '0' || f[number][0] > '9' {
			continue
		}
		switch string(f[state]) {
		case "02", "03", "06", "07", "0A", "0C": // SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE, LISTEN, NEW_SYN_RECV
			continue
		}
		n, err := strconv.ParseUint(string(f[inode]), 10, 64)
		l, okLocal := parseTCP(f[local])
		r, okPeer := parseTCP(f[peer])
		if err == nil && n != 0 && okLocal && okPeer {
			t[n] = tcpSocket{l, r}
		}
	}
}

// parseTCP reads ADDRESS:PORT in hex. An address is one or four words, each as the host would print that number.
func parseTCP(text []byte) (netip.AddrPort, bool) {
	host, port, ok := bytes.Cut(text, []byte(":"))
	number, err := strconv.ParseUint(string(port), 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	b := make([]byte, hex.DecodedLen(len(host)))
	if _, err := hex.Decode(b, host); err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := b; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(number)), ok
}
