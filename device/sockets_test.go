// SPDX-License-Identifier: Apache-2.0

package device

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// A pair is a TCP connection and the descriptor of its client's end.
func pair(t testing.TB, network, address string) (client, server *net.TCPConn, fd uint32) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn), descriptor(t, c.(*net.TCPConn))
}

func descriptor(t testing.TB, c syscall.Conn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number uint32
	if err := raw.Control(func(fd uintptr) { number = uint32(fd) }); err != nil {
		t.Fatal(err)
	}
	return number
}

func copyOf(t testing.TB, c *net.TCPConn) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// here is this process, as one that has described nothing yet.
func here() *described {
	p := new(described)
	p.task, p.netNS = taskOf(os.Getpid())
	return p
}

// toFind is this process, having described connections by their descriptors.
func toFind(numbers ...uint32) *described {
	p := here()
	for _, n := range numbers {
		p.conns = append(p.conns, &procs.Conn{Mode: procs.TCP, State: smc.Active, Descriptor: n + 1})
	}
	return p
}

func inodeOf(t testing.TB, c *net.TCPConn) uint64 {
	t.Helper()
	inode, err := here().socketAt(descriptor(t, c) + 1)
	if err != nil || inode == 0 {
		t.Fatal(inode, err)
	}
	return inode
}

// TestFoundSockets: of a descriptor the kernel's addresses and inode are listed, once, if it is a TCP connection, and nothing if it is not.
func TestFoundSockets(t *testing.T) {
	d := newDevice(t)
	h := newBlock(t, d, self(), 4096)
	var does [4]byte
	if _, err := unix.Pread(h.FD(), does[:], procs.OffDoes); err != nil || procs.DoesFind != does[0]|does[3] {
		t.Fatalf("the head says % x, %v", does, err)
	}
	client, server, fd := pair(t, "tcp4", "127.0.0.1:0")
	six, _, fdSix := pair(t, "tcp6", "[::1]:0")
	reset, other, fdReset := pair(t, "tcp4", "127.0.0.1:0")
	other.SetLinger(0)
	other.Close()
	reset.Read(make([]byte, 1))
	udp, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	say := func(i int, fd uint32, peer net.Addr) {
		describe(t, h, i, &procs.Conn{Role: procs.Client, Mode: procs.TCP, State: smc.Active, Reason: smc.DeclPeerNoSMC,
			Peer: netip.MustParseAddrPort(peer.String()), Descriptor: fd + 1})
	}
	say(0, fd, client.RemoteAddr())
	say(1, fd, client.RemoteAddr()) // once is enough
	copied := copyOf(t, client)
	say(13, descriptor(t, copied), client.RemoteAddr()) // also by another number
	say(2, fdSix, six.RemoteAddr())
	say(3, fdSix, client.RemoteAddr())
	say(4, fdReset, reset.RemoteAddr())
	say(5, descriptor(t, udp.(*net.UDPConn)), udp.RemoteAddr())
	say(6, uint32(null.Fd()), client.RemoteAddr())
	say(7, 1<<20, client.RemoteAddr())
	say(8, 1<<32-2, client.RemoteAddr())
	describe(t, h, 9, tcpConn(1))
	led, _, fdLed := pair(t, "tcp4", "127.0.0.1:0")
	say(10, fdLed, six.RemoteAddr()) // where it was to go, as a program of eBPF sees it
	whole, _, fdWhole := pair(t, "tcp4", "127.0.0.1:0")
	say(11, fdWhole, whole.RemoteAddr())
	described := tcpConn(2)
	described.Inode = inodeOf(t, whole)
	describe(t, h, 12, described)
	half, _, fdHalf := pair(t, "tcp4", "127.0.0.1:0")
	half.CloseWrite()
	say(14, fdHalf, half.RemoteAddr())

	want := make(map[uint64]string)
	for _, c := range []*net.TCPConn{client, six, led, half} {
		want[inodeOf(t, c)] = c.LocalAddr().String() + " " + c.RemoteAddr().String()
	}
	want[described.Inode] = "10.0.0.1:2 10.0.0.2:80"
	want[0] = "10.0.0.1:1 10.0.0.2:80"
	have, n := make(map[uint64]string), 0
	for _, c := range listConns(t, d) {
		have[c.Inode] = c.Local.String() + " " + c.Peer.String()
		n++
	}
	if n != len(want) || !maps.Equal(have, want) {
		t.Errorf("%d lines, %v; want %v", n, have, want)
	}

	client.Close()
	copied.Close()
	if list := listConns(t, d); len(list) != len(want)-1 || slices.ContainsFunc(list, func(c ConnInfo) bool { return c.Descriptor == fd+1 }) {
		t.Errorf("after a close: %+v", list)
	}
}

// TestFoundSocketsOfOneChanged: what was found by the descriptors of a process is not shown if that is no longer to be seen, as one that
// has executed a setuid program, nor if it has only then, or only before, what was found.
func TestFoundSocketsOfOneChanged(t *testing.T) {
	d := newDevice(t)
	newBlock(t, d, self(), 4096)
	client, other, fd := pair(t, "tcp4", "127.0.0.1:0")
	pid, who, err := self().identify()
	if err != nil {
		t.Fatal(err)
	}
	stranger := Principal{UID: who.UID + 1, userNS: who.userNS, pidNS: who.pidNS}
	for _, row := range []struct {
		name  string
		fd    uint32
		inode uint64 // found
		pid   int    // who asks
		who   Principal
		want  int
	}{
		{"by its user", fd, inodeOf(t, client), 1, who, 2},
		{"by itself", fd, inodeOf(t, client), pid, stranger, 2},
		{"by another user", fd, inodeOf(t, client), 1, stranger, 0},
		{"another socket before", fd, inodeOf(t, other), pid, who, 1},
		{"none any more", 1 << 20, inodeOf(t, client), pid, who, 1},
	} {
		p := here()
		p.process = d.processes.find(pid)
		p.conns = []*procs.Conn{tcpConn(1), {Mode: procs.TCP, Descriptor: row.fd + 1, Inode: row.inode}}
		if list := d.inspectConns(p, row.pid, row.who); len(list) != row.want {
			t.Errorf("%s: %d lines, want %d", row.name, len(list), row.want)
		}
	}
}

// TestTablesOfOneGone: a process that exits while its network namespace's tables are read, or moves to another one, takes no line from the others there.
func TestTablesOfOneGone(t *testing.T) {
	c, cmd := another(t)
	task, _ := taskOf(int(c.TID))
	cmd.Process.Kill()
	cmd.Wait()
	_, _, fd := pair(t, "tcp6", "[::1]:0")
	gone, moved, there := toFind(fd), toFind(fd), toFind(fd)
	gone.task = task
	moved.netNS++
	for _, p := range []*described{gone, moved, there} {
		p.conns[0].Inode, _ = there.socketAt(fd + 1)
	}
	findAddresses([]*described{gone, moved, there})
	if len(moved.conns) != 0 {
		t.Error("of one that is not where it was said to be, a line")
	}
	if len(there.conns) != 1 || !there.conns[0].Local.IsValid() {
		t.Error("of another, no line")
	}
}

// TestManyToFind: a process does not have the daemon look at more of its descriptors than smc_run describes. That one is not open does not mean that the
// daemon may not look.
func TestManyToFind(t *testing.T) {
	_, _, fd := pair(t, "tcp4", "127.0.0.1:0")
	invented := make([]uint32, mostFound)
	for i := range invented {
		invented[i] = 1<<20 + uint32(i)
	}
	for _, row := range []struct {
		name string
		p    *described
		want int
	}{
		{"one", toFind(fd), 1},
		{"twice", toFind(fd, fd), 1},
		{"behind as many as are looked for, but for one", toFind(append(invented[1:], fd)...), 1},
		{"behind as many as are looked for", toFind(append(invented, fd)...), 0},
	} {
		if barred := row.p.findInodes(); barred || len(row.p.conns) != row.want {
			t.Errorf("%s: %d, want %d; barred: %v", row.name, len(row.p.conns), row.want, barred)
		}
	}
}

// TestManyNamespaces: no uid has the daemon read the tables of more network namespaces than that, however many its processes are in.
func TestManyNamespaces(t *testing.T) {
	_, _, fd := pair(t, "tcp4", "127.0.0.1:0")
	for _, row := range []struct {
		name   string
		others int // namespaces
		uid    uint32
		want   int
	}{
		{"the last one", mostTables - 1, 1, 1},
		{"one more", mostTables, 1, 0},
		{"another user's", mostTables, 2, 1},
	} {
		p := toFind(fd)
		p.uid = row.uid
		list := []*described{p}
		for i := range row.others { // in which there is nobody any more
			o := toFind(fd)
			o.uid, o.task, o.netNS = 1, "/proc/0", p.netNS-1-uint64(i) // before p's
			list = append(list, o)
		}
		p.findInodes()
		if findAddresses(list); len(p.conns) != row.want {
			t.Errorf("%s: %d, want %d", row.name, len(p.conns), row.want)
		}
	}
}

// BenchmarkFoundSockets is the list of 1,000 connections that their process describes by their descriptors.
func BenchmarkFoundSockets(b *testing.B) {
	d, err := New(Config{Limits: DefaultLimits(8 << 30)})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	h := newBlock(b, d, self(), 1<<20)
	const n = 1000
	for i := range n {
		client, _, fd := pair(b, "tcp4", "127.0.0.1:0")
		describe(b, h, i, &procs.Conn{Mode: procs.TCP, State: smc.Active, Peer: netip.MustParseAddrPort(client.RemoteAddr().String()), Descriptor: fd + 1})
	}
	for b.Loop() {
		if len(listConns(b, d)) != n {
			b.Fatal("some are missing")
		}
	}
}
