// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// Offsets in struct bpf_sock_ops and struct bpf_sockopt, and operations of the former (linux/bpf.h).
const (
	opsOp, opsReply, opsFlags      = 0, 4, 84
	optValue, optEnd               = 8, 16
	optLevel, optName              = 24, 28
	opConnect, opNeedsECN          = 3, 6
	opListen, opHdrLen, opWriteHdr = 11, 14, 15
	flagRTO, flagWriteHdr          = 1 << 0, 1 << 6
)

func doNothing() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
}

var otherOption = []byte{253, 4, 0xab, 0xcd}

// otherSockops is another user of sockops: it asks for ECN, and writes an option of its own into all segments, for which it
// sets these flags.
func otherSockops(flags int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, opsOp, asm.Word),
		asm.JEq.Imm(asm.R7, opNeedsECN, "ecn"),
		asm.JEq.Imm(asm.R7, opConnect, "ask"),
		asm.JEq.Imm(asm.R7, opListen, "ask"),
		asm.JEq.Imm(asm.R7, opHdrLen, "reserve"),
		asm.JEq.Imm(asm.R7, opWriteHdr, "write"),
		asm.Ja.Label("out"),

		asm.Mov.Imm(asm.R1, 1).WithSymbol("ecn"),
		asm.StoreMem(asm.R6, opsReply, asm.R1, asm.Word),
		asm.Ja.Label("out"),

		asm.LoadMem(asm.R2, asm.R6, opsFlags, asm.Word).WithSymbol("ask"),
		asm.Or.Imm(asm.R2, flags),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnSockOpsCbFlagsSet.Call(),
		asm.Ja.Label("out"),

		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("reserve"),
		asm.Mov.Imm(asm.R2, 4),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnReserveHdrOpt.Call(),
		asm.Ja.Label("out"),

		asm.StoreImm(asm.RFP, -4, 253, asm.Byte).WithSymbol("write"),
		asm.StoreImm(asm.RFP, -3, 4, asm.Byte),
		asm.StoreImm(asm.RFP, -2, 0xab, asm.Byte),
		asm.StoreImm(asm.RFP, -1, 0xcd, asm.Byte),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.Mov.Imm(asm.R3, 4),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnStoreHdrOpt.Call(),

		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	}
}

// otherSetsockopt is another user of cgroup/setsockopt: it makes every IP_TOS 8.
func otherSetsockopt() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, optLevel, asm.Word),
		asm.JNE.Imm(asm.R2, unix.SOL_IP, "out"),
		asm.LoadMem(asm.R2, asm.R1, optName, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IP_TOS, "out"),
		asm.LoadMem(asm.R2, asm.R1, optValue, asm.DWord),
		asm.LoadMem(asm.R3, asm.R1, optEnd, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 1),
		asm.JGT.Reg(asm.R4, asm.R3, "out"),
		asm.StoreImm(asm.R2, 0, 8, asm.Byte),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
		asm.Return(),
	}
}

func loadOther(t testing.TB, kind ebpf.ProgramType, at ebpf.AttachType, code asm.Instructions) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "other", Type: kind, AttachType: at, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func attachOther(t testing.TB, cgroup string, p *ebpf.Program, at ebpf.AttachType) {
	t.Helper()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: at, Program: p})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

// Another user of sockops keeps its option, its replies and its calls, and so do we, whichever comes first.
func TestBesideSockops(t *testing.T) {
	for _, c := range []struct {
		name   string
		inner  bool // the other one is attached to a cgroup below
		before bool // it was there first
		flags  int32
		keeps  bool // its option goes on in later segments, see docs/bpf.md
	}{
		{"in a cgroup below", true, false, flagWriteHdr, true},
		{"attached first", false, true, flagWriteHdr, true},
		{"attached first, with the flags that are ours", false, true, flagWriteHdr | flagRTO, true},
		{"attached later", false, false, flagWriteHdr, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			cgroup := h.cgroup
			if c.inner {
				cgroup = innerCgroup(t, h)
			}
			other := loadOther(t, ebpf.SockOps, ebpf.AttachCGroupSockOps, otherSockops(c.flags))
			if c.before {
				attachOther(t, cgroup, other, ebpf.AttachCGroupSockOps)
			}
			r := register(t, h, 1)
			if !c.before {
				attachOther(t, cgroup, other, ebpf.AttachCGroupSockOps)
			}
			besideSockops(t, r, c.keeps)
			if got := serverWritesOther(t, r.tag); got != c.keeps {
				t.Errorf("the server of a plain client writes the other's option: %v, want %v", got, c.keeps)
			}
			if got, want := serverWritesOther(t), c.flags == flagWriteHdr; got != want {
				t.Errorf("a server that was never marked writes the other's option: %v, want %v", got, want)
			}
		})
	}
}

func besideSockops(t *testing.T, r *Registration, keeps bool) {
	n := newNetns(t)
	stop := capture(t, n)
	l, at := listener(t, n, loopback4, r.tag)
	c := dial(t, n, at, r.tag)
	s := accept(t, l)
	wantAnswer(t, "client", c, smc(r.tag))
	wantAnswer(t, "server", s, smc(r.tag))
	transfer(t, c, s)
	for _, s := range stop() {
		options, err := s.experimental()
		if err != nil {
			t.Fatal(err)
		}
		has := func(o []byte) bool {
			for _, found := range options {
				if bytes.Equal(found, o) {
					return true
				}
			}
			return false
		}
		if s.flags&flagSYN == 0 {
			if keeps && !has(otherOption) {
				t.Errorf("flags %#x: the other's option is gone: % x", s.flags, s.options)
			}
			continue
		}
		direction := byte(1)
		if s.flags&flagACK != 0 {
			direction = 2
		} else if s.flags&0xc0 != 0xc0 {
			t.Errorf("flags %#x of the SYN: the other's reply is lost", s.flags)
		}
		if !has(otherOption) || !has(ourOption(direction, r.tag)) {
			t.Errorf("flags %#x: options % x", s.flags, options)
		}
	}
}

// serverWritesOther reports whether a server of a plain client has the other's option in all that it sends. Its listener is
// marked if there is a tag.
func serverWritesOther(t *testing.T, tags ...smcopt.Tag) bool {
	t.Helper()
	n := newNetns(t)
	stop := capture(t, n)
	l, at := listener(t, n, loopback4, tags...)
	c := dial(t, n, at)
	transfer(t, c, accept(t, l))
	sent, with := 0, 0
	for _, s := range stop() {
		if s.from != at || s.flags&flagSYN != 0 {
			continue
		}
		sent++
		if bytes.Contains(s.options, otherOption) {
			with++
		}
	}
	if sent == 0 || with != 0 && with != sent {
		t.Errorf("%d of %d segments have the other's option", with, sent)
	}
	return with > 0
}

// inContainer puts the test into a cgroup below the host's, and returns the host as a daemon there sees it.
func inContainer(t *testing.T, h host) host {
	t.Helper()
	h.wholeHost, h.cgroup = false, innerCgroup(t, h)
	return h
}

// innerCgroup puts the test into a cgroup below the host's.
func innerCgroup(t *testing.T, h host) string {
	t.Helper()
	dir := filepath.Join(h.cgroup, "inner")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := enterCgroup(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := enterCgroup(h.cgroup); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestBesideSetsockopt(t *testing.T) {
	h := newHost(t)
	attachOther(t, h.cgroup, loadOther(t, ebpf.CGroupSockopt, ebpf.AttachCGroupSetsockopt, otherSetsockopt()), ebpf.AttachCGroupSetsockopt)
	r := register(t, h, 1)
	fd := (*netns)(nil).socket(t, loopback4)
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS, 16); err != nil {
		t.Fatal(err)
	}
	if v, err := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS); v != 8 || err != nil {
		t.Errorf("IP_TOS is %d (%v), want what the other program made of it", v, err)
	}
	mark(t, fd, r.tag)
}

// Who attached without room for others keeps us out, and we say so and leave nothing.
func TestBesideExclusive(t *testing.T) {
	h := newHost(t)
	p := loadOther(t, ebpf.CGroupSockopt, ebpf.AttachCGroupSetsockopt, doNothing())
	dir, err := os.Open(h.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: ebpf.AttachCGroupSetsockopt}); err != nil {
		t.Fatal(err)
	}
	_, err = h.attach(testTag(1))
	if !errors.Is(err, ErrNotPermitted) {
		t.Error(err)
	}
	if _, err := os.Stat(h.base()); !errors.Is(err, os.ErrNotExist) {
		t.Error("something is left:", err)
	}
	if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: ebpf.AttachCGroupSetsockopt}); err != nil {
		t.Fatal(err)
	}
}

// Options of others come through unchanged, also those longer than the page that a program sees of them.
func TestPassThrough(t *testing.T) {
	h := newHost(t)
	n := newNetns(t)
	sysctl(t, n, "net.ipv4.igmp_max_msf", "4000")
	n.run(t, "ip", "link", "set", "lo", "multicast", "on")
	n.run(t, "ip", "route", "add", "224.0.0.0/4", "dev", "lo")
	without := otherOptions(t, n)
	register(t, h, 1)
	with := otherOptions(t, n)
	for name := range without {
		if !bytes.Equal(with[name], without[name]) {
			t.Errorf("%s: %d bytes % .40x, without programs %d bytes % .40x", name, len(with[name]), with[name], len(without[name]), without[name])
		}
	}
}

func otherOptions(t *testing.T, n *netns) map[string][]byte {
	t.Helper()
	got := make(map[string][]byte)
	tcp := n.socket(t, loopback4)
	read := func(name string, fd, level, option, room int) {
		t.Helper()
		b := make([]byte, room)
		k, e := getsockopt(fd, level, option, b)
		if e != 0 {
			t.Fatalf("%s: %v", name, e)
		}
		got[name] = append(b[:k:k], byte(k>>8), byte(k))
	}
	for _, size := range []int{8, 4096, 4097, 65536} {
		name := append([]byte("reno"), make([]byte, size-4)...)
		if err := unix.SetsockoptString(tcp, unix.SOL_TCP, unix.TCP_CONGESTION, string(name)); err != nil {
			t.Fatalf("TCP_CONGESTION of %d bytes: %v", size, err)
		}
		read("TCP_CONGESTION", tcp, unix.SOL_TCP, unix.TCP_CONGESTION, size)
		read("SO_TYPE into a long buffer", tcp, unix.SOL_SOCKET, unix.SO_TYPE, size)
	}
	var udp int
	n.do(t, func() (err error) {
		udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		return err
	})
	defer unix.Close(udp)
	const sources = 3000 // 12 KB
	filter := make([]byte, 16+4*sources)
	copy(filter, []byte{232, 1, 1, 1, 127, 0, 0, 1}) // group, interface
	*(*[4]byte)(filter[8:]) = native32(unix.MCAST_INCLUDE)
	*(*[4]byte)(filter[12:]) = native32(sources)
	for i := range sources {
		copy(filter[16+4*i:], []byte{10, 9, byte(i >> 8), byte(i)})
	}
	join := append(append([]byte{232, 1, 1, 1}, 127, 0, 0, 1), 10, 9, 0, 0) // ip_mreq_source
	if err := unix.SetsockoptString(udp, unix.SOL_IP, unix.IP_ADD_SOURCE_MEMBERSHIP, string(join)); err != nil {
		t.Fatal("IP_ADD_SOURCE_MEMBERSHIP:", err)
	}
	if err := unix.SetsockoptString(udp, unix.SOL_IP, unix.IP_MSFILTER, string(filter)); err != nil {
		t.Fatal("IP_MSFILTER:", err)
	}
	back := make([]byte, len(filter))
	copy(back, filter[:8])
	*(*[4]byte)(back[12:]) = native32(sources)
	k, e := getsockopt(udp, unix.SOL_IP, unix.IP_MSFILTER, back)
	if e != 0 || k != len(filter) || !bytes.Equal(back, filter) {
		t.Errorf("IP_MSFILTER comes back as %d bytes (%v), want %d", k, e, len(filter))
	}
	got["IP_MSFILTER"] = back
	if err := unix.SetsockoptInt(tcp, unix.SOL_TCP, 9999, 1); err != unix.ENOPROTOOPT {
		t.Error("an option that does not exist:", err)
	}
	return got
}
