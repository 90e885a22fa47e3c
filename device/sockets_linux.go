// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

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
	text   *bufio.Reader           // of the table that is being read
}

// mostFound bounds how many of a process's connections are looked for by their descriptors; smc_run describes no more so.
const mostFound = 4096

// canFindSockets reports whether the daemon may look at the descriptors of a process, and at its namespace's connections.
func canFindSockets(pid int) bool {
	task, _ := taskOf(pid)
	dir, err := os.Open(task + "/fd")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if err != nil {
		return false
	}
	if _, err := os.Readlink(task + "/fd/" + names[0]); err != nil {
		return false
	}
	f, err := os.Open(task + "/net/tcp")
	if err != nil {
		return false
	}
	return f.Close() == nil
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

// find fills in the connections that a process has described by their descriptors, up to most in all, and leaves out those that
// are none, or that a slot says all of. barred: the daemon may not look any more.
func (f *socketFinder) find(p *described, most int) (barred bool) {
	found, toFind := p.conns[:0], []*procs.Conn(nil)
	inodes, numbers := make(map[uint64]bool), make(map[uint32]bool)
	for _, c := range p.conns {
		if c.Descriptor != 0 {
			toFind = append(toFind, c)
			continue
		}
		inodes[c.Inode] = true
		found = append(found, c)
	}
	for _, c := range toFind {
		if len(found) >= most || len(numbers) >= mostFound {
			break
		}
		if numbers[c.Descriptor] {
			continue
		}
		numbers[c.Descriptor] = true
		ok, err := f.fill(p, c, inodes)
		if err != nil { // it would be so for each of its sockets
			p.conns = found
			return errors.Is(err, fs.ErrPermission)
		}
		if ok {
			found = append(found, c)
		}
	}
	p.conns = found
	return false
}

// fill fills in one connection; false: it is none, or its inode is among those that are listed.
func (f *socketFinder) fill(p *described, c *procs.Conn, listed map[uint64]bool) (bool, error) {
	inode, err := p.socketAt(c.Descriptor)
	if errors.Is(err, fs.ErrPermission) {
		return false, err
	}
	if inode == 0 || listed[inode] {
		return false, nil
	}
	listed[inode] = true
	s, ok, err := f.look(p, inode)
	if ok {
		s.describe(c, inode)
	}
	return ok, err
}

// describe fills in what the kernel says. The peer, too: a program of eBPF can have led the connection elsewhere than its process
// asked for.
func (s tcpSocket) describe(c *procs.Conn, inode uint64) {
	c.Local, c.Peer, c.Inode = s.local, s.peer, inode
	if c.Local.Addr().Is4In6() && c.Peer.Addr().Is4In6() {
		c.Local, c.Peer = unmapped(c.Local), unmapped(c.Peer)
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
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

// tcpTables are read one after the other until a socket is found. Twice: the kernel hands a table over in pieces, and where one
// ends can pass over a connection if another one goes just then.
var tcpTables = [...]string{"net/tcp", "net/tcp6", "net/tcp", "net/tcp6"}

// A socketTable has the connections of a network namespace, as far as they were read.
type socketTable struct {
	sockets map[uint64]tcpSocket // by their inodes
	read    int                  // of tcpTables
}

// look returns the connection with an inode, if there is one.
func (f *socketFinder) look(p *described, inode uint64) (s tcpSocket, ok bool, err error) {
	t := f.tables[p.netNS]
	if t == nil {
		t = &socketTable{sockets: make(map[uint64]tcpSocket)}
		if f.tables == nil {
			f.tables = make(map[uint64]*socketTable)
		}
		f.tables[p.netNS] = t
	}
	for {
		if s, ok := t.sockets[inode]; ok {
			return s, true, nil
		}
		if t.read == len(tcpTables) {
			return tcpSocket{}, false, nil
		}
		more, err := f.readTable(p, tcpTables[t.read])
		if err != nil {
			return tcpSocket{}, false, err
		}
		maps.Copy(t.sockets, more)
		t.read++
	}
}

// readTable reads one table of a process's network namespace. It counts for others there only if the process has been there all
// along, and lives: else it may be another's, or nothing.
func (f *socketFinder) readTable(p *described, name string) (map[uint64]tcpSocket, error) {
	sockets, err := f.readFile(p.task + "/" + name)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, "6") { // no IPv6 on this host, unless the process has gone
		err = nil
	}
	if err != nil {
		return nil, err
	}
	switch ns, err := namespaceIn(p.task, "net"); {
	case err != nil:
		return nil, err
	case ns != p.netNS:
		return nil, unix.ESRCH
	}
	return sockets, nil
}

func (f *socketFinder) readFile(path string) (map[uint64]tcpSocket, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if f.text == nil {
		f.text = bufio.NewReaderSize(nil, 64<<10)
	}
	f.text.Reset(file)
	return readTCP(f.text)
}

// readTCP reads the connections that the text of /proc/net/tcp or tcp6 lists: whose handshake is over, and that are not closed.
func readTCP(text *bufio.Reader) (map[uint64]tcpSocket, error) {
	t := make(map[uint64]tcpSocket)
	for {
		line, err := text.ReadSlice('\n')
		if inode, s, ok := parseLine(line); ok {
			t[inode] = s
		}
		switch err {
		case nil:
		case io.EOF:
			return t, nil
		default:
			return nil, err
		}
	}
}

// parseLine reads a line of such a table; of most lines on a host with many short connections, no more than their state.
func parseLine(line []byte) (inode uint64, s tcpSocket, ok bool) {
	const local, peer, state, number = 1, 2, 3, 9
	var f [number + 1][]byte
	n := 0
	for field := range bytes.FieldsSeq(line) {
		if n == state && !established(field) {
			return 0, s, false
		}
		f[n] = field
		if n++; n == len(f) {
			break
		}
	}
	if n < len(f) {
		return 0, s, false
	}
	inode, err := strconv.ParseUint(string(f[number]), 10, 64)
	if err != nil || inode == 0 {
		return 0, s, false
	}
	var okLocal, okPeer bool
	s.local, okLocal = parseTCP(f[local])
	s.peer, okPeer = parseTCP(f[peer])
	return inode, s, okLocal && okPeer
}

func established(state []byte) bool {
	switch string(state) {
	case "01", "04", "05", "08", "09", "0B": // ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING
		return true
	}
	return false
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
