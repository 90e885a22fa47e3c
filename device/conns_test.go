// SPDX-License-Identifier: Apache-2.0

package device

import (
	"encoding/binary"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// newBlock makes the block of a process.
func newBlock(t testing.TB, d *Device, c Caller, size int64) *BlockHandle {
	t.Helper()
	id, err := d.ProcessID(c)
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.CreateBlock(c, id)
	if err == nil {
		err = d.SetBlockSize(c, id, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// describe writes a slot as its process would, the sequence word included.
func describe(t testing.TB, h *BlockHandle, i int, what interface{ Put(*[procs.SlotLen]byte) }) {
	t.Helper()
	var b [procs.SlotLen]byte
	what.Put(&b)
	binary.NativeEndian.PutUint32(b[procs.OffSequence:], 2)
	put(t, h.FD(), b[:], procs.OffSlots+int64(i)*procs.SlotLen)
}

func put(t testing.TB, fd int, b []byte, off int64) {
	t.Helper()
	if n, err := unix.Pwrite(fd, b, off); err != nil || n != len(b) {
		t.Fatalf("pwrite: %d, %v", n, err)
	}
}

func tcpConn(port uint16) *procs.Conn {
	return &procs.Conn{Mode: procs.TCP, State: smc.Active, Reason: smc.DeclPeerNoSMC,
		Local: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port), Peer: netip.MustParseAddrPort("10.0.0.2:80")}
}

func listConns(t testing.TB, d *Device) []ConnInfo {
	t.Helper()
	list, err := d.Conns(self())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wordOf returns 32 bits of a block.
func wordOf(t *testing.T, h *BlockHandle, off int64) uint32 {
	t.Helper()
	var b [4]byte
	if _, err := unix.Pread(h.FD(), b[:], off); err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint32(b[:])
}

// TestStopFinding: a process is told when the device does less for it, and woken for it once.
func TestStopFinding(t *testing.T) {
	d := newDevice(t)
	h := newBlock(t, d, self(), 4096)
	word := func(off int64) uint32 { return wordOf(t, h, off) }
	was := word(procs.OffWord)
	d.stopFinding(d.processes.find(os.Getpid()))
	if does := word(procs.OffDoes); does != 0 || word(procs.OffWord) == was {
		t.Errorf("does %d, the word %d as before", does, was)
	}
	was = word(procs.OffWord)
	d.stopFinding(d.processes.find(os.Getpid()))
	if word(procs.OffWord) != was {
		t.Error("woken for nothing new")
	}
}

// TestConns: tokens and headers are shown of the DMBs that the device knows to be a connection's, and of no others.
func TestConns(t *testing.T) {
	d := newDevice(t)
	peer, _ := another(t)
	own := register(t, d, 0xa, true, 64<<10)
	other, err := d.RegisterDMB(peer, 0xb, true)
	if err == nil {
		err = other.DMB.SetSize(peer, 128<<10)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		by Caller
		m  *DMB
	}{{peer, own.DMB}, {self(), other.DMB}} {
		if _, err := d.AttachDMB(a.by, a.m, ReadWrite); err != nil {
			t.Fatal(err)
		}
	}
	var header [smc.CDCLen]byte
	binary.NativeEndian.PutUint64(header[smc.OffProducer:], smc.ProducerWord(smc.Cursor{Wrap: 1, Count: 2}))
	binary.NativeEndian.PutUint64(header[smc.OffConsumer:], smc.ConsumerWord(smc.Cursor{Wrap: 3, Count: 4}, smc.WriteBlocked, smc.PeerDoneWriting))
	put(t, own.FD(), header[:], 0)

	h := newBlock(t, d, self(), 4096)
	conn := func(token, peerToken uint64) *procs.Conn {
		c := tcpConn(1)
		c.Mode, c.Reason, c.Token, c.PeerToken = procs.SMCD, 0, token, peerToken
		return c
	}
	describe(t, h, 3, conn(0xa, 0xb))
	describe(t, h, 5, conn(0xb, 0xa)) // the other way round: neither is true
	describe(t, h, 7, conn(0xc, 0xffff))
	describe(t, h, 9, tcpConn(2))
	list := listConns(t, d)
	if len(list) != 4 {
		t.Fatalf("%d lines: %+v", len(list), list)
	}
	c := list[0]
	if c.PID != os.Getpid() || c.UID != uint32(os.Geteuid()) || c.NetNS == 0 || c.Token != 0xa || c.PeerToken != 0xb || c.Own == nil || c.Other == nil {
		t.Fatalf("the true one: %+v", c)
	}
	want := Ring{Number: own.DMB.Sequence, Size: 64 << 10, Producer: smc.Cursor{Wrap: 1, Count: 2}, Consumer: smc.Cursor{Wrap: 3, Count: 4},
		ProducerFlags: smc.WriteBlocked, StateFlags: smc.PeerDoneWriting}
	if *c.Own != want || c.Other.Size != 128<<10 {
		t.Errorf("headers %+v, %+v", *c.Own, *c.Other)
	}
	for _, c := range list[1:] {
		if c.Token != 0 || c.PeerToken != 0 || c.Own != nil || c.Other != nil {
			t.Errorf("believed: %+v", c)
		}
	}
}

// TestLinkGroups: the peer is shown where a DMB lies between the two processes, and each DMB counts in one group.
func TestLinkGroups(t *testing.T) {
	d := newDevice(t)
	peer, _ := another(t)
	peerID, err := d.ProcessID(peer)
	if err != nil {
		t.Fatal(err)
	}
	for token, size := range map[Token]int64{0x10: 64 << 10, 0x11: 128 << 10, 0x12: 256 << 10, 0x13: doorbellPageSize, 0x14: 512 << 10} {
		m := register(t, d, token, true, size).DMB
		if token == 0x14 { // nobody's yet
			continue
		}
		if _, err := d.AttachDMB(peer, m, ReadWrite); err != nil {
			t.Fatal(err)
		}
	}
	h := newBlock(t, d, self(), 4096)
	for i, g := range []procs.Group{
		{Role: procs.Client, ID: 0x100, Peer: peerID, Release: 1, OS: 2, Host: "host"},
		{Role: procs.Server, ID: 0x200, Peer: peerID},
		{Role: procs.Server, ID: 0x300, Peer: peerID + 1},
	} {
		describe(t, h, i, &g)
	}
	for i, c := range []procs.Conn{
		{Mode: procs.SMCD, State: smc.Active, LinkID: 0x100, Token: 0x10}, {Mode: procs.SMCD, State: smc.Active, LinkID: 0x200, Token: 0x11},
		{Mode: procs.SMCD, State: smc.Active, LinkID: 0x200, Token: 0xdead}, {Mode: procs.TCP, State: smc.Active, LinkID: 0x200},
		{Mode: procs.SMCD, State: smc.Active, LinkID: 0x999},
	} {
		describe(t, h, 3+i, &c)
	}
	list, err := d.LinkGroups(self())
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, want := range []struct {
		peer    uint32
		pid     int
		conns   int
		dmbSize int64
	}{
		{peerID, int(peer.TID), 1, (64 + 256) << 10}, // with the one that no connection uses
		{peerID, int(peer.TID), 2, 128 << 10},
		{0, 0, 0, 0},
	} {
		if g := list[i]; g.Peer != want.peer || g.PeerPID != want.pid || g.Conns != want.conns || g.Bytes != want.dmbSize {
			t.Errorf("group %d: %+v, want %+v", i, g, want)
		}
	}
}

// TestBadSlots: what is wrong with one slot keeps no other from being listed.
func TestBadSlots(t *testing.T) {
	d := newDevice(t)
	h := newBlock(t, d, self(), 1<<20)
	n := procs.Slots(1 << 20)
	for _, i := range []int{0, 600, n - 1} { // with holes between them
		describe(t, h, i, tcpConn(uint16(i)))
	}
	odd := []byte{3, 0, 0, 0}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		odd = []byte{0, 0, 0, 3}
	}
	describe(t, h, 1, tcpConn(1))
	put(t, h.FD(), odd, procs.OffSlots+procs.SlotLen) // died while writing
	describe(t, h, 601, tcpConn(2))
	put(t, h.FD(), []byte{77}, procs.OffSlots+601*procs.SlotLen+4) // no kind
	var ports []uint16
	for _, c := range listConns(t, d) {
		ports = append(ports, c.Local.Port())
	}
	if len(ports) != 3 || ports[0] != 0 || ports[1] != 600 || ports[2] != uint16(n-1) {
		t.Errorf("listed are %v", ports)
	}
	id, _ := d.ProcessID(self())
	if info, _ := d.Block(self(), id); info.Populated > 8*4096 {
		t.Errorf("reading has populated %d bytes", info.Populated)
	}
}

// TestSlotsUnderWriting: a reader never sees half of one description and half of another.
func TestSlotsUnderWriting(t *testing.T) {
	d := newDevice(t)
	h := newBlock(t, d, self(), 4096)
	m, err := unix.Mmap(h.FD(), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() { writeSlots(m[procs.OffSlots:], stop) })
	defer writer.Wait()
	defer close(stop)
	seen := 0
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		for _, c := range listConns(t, d) {
			seen++
			if uint64(c.Local.Port()) != c.Inode {
				t.Fatalf("torn: port %d, inode %d", c.Local.Port(), c.Inode)
			}
		}
	}
	if seen == 0 {
		t.Error("never seen between two changes")
	}
}

func TestSettings(t *testing.T) {
	d := newDevice(t)
	h := newBlock(t, d, self(), 4096)
	word := func(off int64) uint32 { return wordOf(t, h, off) }
	told := word(procs.OffWord)
	want := func(settings uint32, news bool) {
		t.Helper()
		if got := word(procs.OffSettings); got != settings {
			t.Errorf("settings are %d, not %d", got, settings)
		}
		now := word(procs.OffWord)
		if (now != told) != news {
			t.Errorf("the device word went from %d to %d", told, now)
		}
		told = now
	}
	want(0, false)
	for _, step := range []struct {
		turn     func() error
		settings uint32
		news     bool
	}{
		{func() error { return d.SetDMBType(self(), Virtual) }, procs.SettingType, true},
		{func() error { return d.SetDMBType(self(), Virtual) }, procs.SettingType, false},
		{func() error { return d.SetDMBCopy(self(), true) }, procs.SettingType | procs.SettingCopy, true},
		{func() error { return d.SetDMBType(self(), Physical) }, procs.SettingCopy, true},
		{func() error { return d.SetDMBCopy(self(), false) }, 0, true},
	} {
		if err := step.turn(); err != nil {
			t.Skipf("turning knobs takes privileges: %v", err)
		}
		want(step.settings, step.news)
	}
}

func TestHandshakeCounters(t *testing.T) {
	d := newDevice(t)
	c, cmd := another(t)
	h := newBlock(t, d, c, 4096)
	count := func(off int, n uint64) {
		put(t, h.FD(), binary.NativeEndian.AppendUint64(nil, n), int64(off))
	}
	last := len(smc.DeclineCodes) - 1
	count(procs.OffHandshakeError(procs.Client), 1)
	count(procs.OffHandshakeError(procs.Server), 2)
	count(procs.OffFallback(procs.Server, 0), 3)
	count(procs.OffFallback(procs.Client, last), 4)
	count(procs.OffFallback(procs.Client, last+1), 5) // a code of a later version
	check := func() {
		t.Helper()
		got := d.Statistics(self()).Handshake
		if got.ClientErrors != 1 || got.ServerErrors != 2 || len(got.ServerFallback) != 1 || got.ServerFallback["MEM"] != 3 ||
			len(got.ClientFallback) != 1 || got.ClientFallback[smc.DeclineCodes[last].String()] != 4 {
			t.Errorf("%+v", got)
		}
	}
	check()
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(5 * time.Second); len(d.Statistics(self()).Processes) > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	check()
}

// BenchmarkConns is the list of 2,000 connections as both of their processes describe them.
func BenchmarkConns(b *testing.B) {
	d, err := New(Config{Limits: DefaultLimits(8 << 30)})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	h := newBlock(b, d, self(), 1<<20)
	for i := range 4000 {
		token := Token(i + 1)
		o, err := d.RegisterDMB(self(), token, true)
		if err == nil {
			err = o.DMB.SetSize(self(), 16<<10)
		}
		if err == nil {
			_, err = d.AttachDMB(self(), o.DMB, ReadWrite)
		}
		if err != nil {
			b.Fatal(err)
		}
		put(b, o.FD(), make([]byte, 32), 0)
	}
	for i := range 4000 {
		c := tcpConn(uint16(i))
		c.Mode, c.Token, c.PeerToken = procs.SMCD, uint64(i+1), uint64(4000-i)
		describe(b, h, i, c)
	}
	for b.Loop() {
		if n := len(listConns(b, d)); n != 4000 {
			b.Fatal(n)
		}
	}
}
