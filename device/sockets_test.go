// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bufio"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
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

	want := make(map[uint64]string)
	for _, c := range []*net.TCPConn{client, six, led} {
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

// TestReadTCP: the tables as a little-endian host prints them.
func TestReadTCP(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the tables here are of a little-endian host")
	}
	const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	const rest = " 00000000:00000000 00:00000000 00000000     0        0 "
	found, err := readTCP(bufio.NewReader(strings.NewReader(header +
		"   0: 0100007F:1A85 00000000:0000 0A" + rest + "5 1 0000000000000000 100 0 0 10 0\n" +
		"   1: 0100007F:BDF6 0100007F:1E61 01" + rest + "77 1 0000000000000000 20 4 30 10 -1\n" +
		"   2: 0200007F:BDF6 0100007F:1E61 08" + rest + "78 1 0000000000000000 20 4 30 10 -1\n" +
		"   3: 0100007F:BDF8 0100007F:1E61 02" + rest + "79 1 0000000000000000 20 4 30 10 -1\n" +
		"   4: 0100007F:BDFA 0100007F:1E61 06" + rest + "0 3 0000000000000000\n" +
		"   5: 0100007F:BDFC 0100007F\n" +
		"   6: 0100007G:BDF6 0100007F:1E61 01" + rest + "80 1\n" +
		"   7: 00007F:BDF6 0100007F:1E61 01" + rest + "81 1\n")))
	if err != nil {
		t.Fatal(err)
	}
	six, err := readTCP(bufio.NewReader(strings.NewReader(header +
		"   0: B80D0120000000000000000001000000:0001 0000000000000000FFFF00000100007F:0050 01" + rest + "90 1 0000000000000000 20 4 30 10 -1\n")))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(found, six)
	want := map[uint64]tcpSocket{
		77: {netip.MustParseAddrPort("127.0.0.1:48630"), netip.MustParseAddrPort("127.0.0.1:7777")},
		78: {netip.MustParseAddrPort("127.0.0.2:48630"), netip.MustParseAddrPort("127.0.0.1:7777")},
		90: {netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[::ffff:127.0.0.1]:80")},
	}
	if !maps.Equal(found, want) {
		t.Errorf("%v\nwant %v", found, want)
	}
}

// TestCanFindSockets: not of a process that is not there.
func TestCanFindSockets(t *testing.T) {
	c, cmd := another(t)
	if !canFindSockets(os.Getpid()) || !canFindSockets(int(c.TID)) {
		t.Error("not of a process of its own uid")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if canFindSockets(int(c.TID)) {
		t.Error("of one that has exited")
	}
}

// TestTablesOfOneGone: a process that exits while its network namespace's tables are read, or moves to another one, takes no line from the others there.
func TestTablesOfOneGone(t *testing.T) {
	c, cmd := another(t)
	cmd.Process.Kill()
	cmd.Wait()
	six, _, _ := pair(t, "tcp6", "[::1]:0")
	task, ns := taskOf(os.Getpid())
	gone, _ := taskOf(int(c.TID))
	var f socketFinder
	for name, p := range map[string]*described{"gone": {task: gone, netNS: ns}, "moved": {task: task, netNS: ns + 1}} {
		if s, ok, err := f.look(p, inodeOf(t, six)); ok || err == nil {
			t.Errorf("of one that has %s: %+v, %v", name, s, err)
		}
	}
	if s, ok, err := f.look(&described{task: task, netNS: ns}, inodeOf(t, six)); err != nil || !ok || s.local.String() != six.LocalAddr().String() {
		t.Errorf("of another: %+v, %v", s, err)
	}
}

// TestManyToFind: a process does not have the daemon look at more of its descriptors than smc_run describes, nor for more than are listed.
func TestManyToFind(t *testing.T) {
	client, _, fd := pair(t, "tcp4", "127.0.0.1:0")
	task, netNS := taskOf(os.Getpid())
	to := func(numbers ...uint32) *described {
		p := &described{task: task, netNS: netNS}
		for _, n := range numbers {
			p.conns = append(p.conns, &procs.Conn{Mode: procs.TCP, State: smc.Active, Descriptor: n + 1})
		}
		return p
	}
	invented := make([]uint32, mostFound)
	for i := range invented {
		invented[i] = 1<<20 + uint32(i)
	}
	for _, row := range []struct {
		name string
		p    *described
		most int
		want int
	}{
		{"one", to(fd), 1, 1},
		{"behind as many as are looked for, but for one", to(append(invented[1:], fd)...), 1, 1},
		{"behind as many as are looked for", to(append(invented, fd)...), 1, 0},
		{"of which no more are listed", to(fd, descriptor(t, copyOf(t, client))), 0, 0},
	} {
		var f socketFinder
		if f.find(row.p, row.most); len(row.p.conns) != row.want {
			t.Errorf("%s: %d, want %d", row.name, len(row.p.conns), row.want)
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
