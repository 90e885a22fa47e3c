// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// What the programs cost, in turns of a few milliseconds: without any, with programs that do nothing (what the kernel takes for
// calling them), with ours for sockets that know nothing of them, and for marked ones. It prints CPU times, medians and
// quartiles over as many rounds as -benchtime says:
//
//	go test -run '^$' -bench Cost -benchtime 200x ./bpf
func BenchmarkCost(b *testing.B) {
	h := newHost(b)
	tag := testTag(1)
	programs, err := h.load(nil)
	if err != nil {
		b.Fatal(err)
	}
	defer programs.Close()
	if err := programs.Maps[tagsName].Put(key(tag), uint64(0)); err != nil {
		b.Fatal(err)
	}
	empty := make(map[string]*ebpf.Program)
	for _, a := range attachments {
		kind := ebpf.CGroupSockopt
		if a.at == ebpf.AttachCGroupSockOps {
			kind = ebpf.SockOps
		}
		empty[a.program] = loadOther(b, kind, a.at, doNothing())
	}
	states := []*costState{
		{name: "without"},
		{name: "empty sockops", programs: empty, attached: attachments[:1]},
		{name: "sockops", programs: programs.Programs, attached: attachments[:1]},
		{name: "empty", programs: empty, attached: attachments},
		{name: "ismfs", programs: programs.Programs, attached: attachments},
		{name: "marked", programs: programs.Programs, attached: attachments, tags: []smcopt.Tag{tag}},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for round := range b.N {
		for i := range states {
			states[(i+round)%len(states)].turn(b, h)
		}
	}
	if b.N == 1 {
		return // testing's own trial
	}
	for _, what := range []string{byCalls, byNet, settings, questions} {
		fmt.Printf("\n%s, CPU ns\n", what)
		for _, s := range states {
			s.print(what)
		}
	}
}

// What is measured.
const (
	byCalls   = "socket + setsockopt + connect + accept + close"
	byNet     = "the same with package net"
	settings  = "setsockopt(TCP_NODELAY)"
	questions = "getsockopt(TCP_NODELAY)"
)

// A costState is what is attached in a turn, and what was measured.
type costState struct {
	name     string
	programs map[string]*ebpf.Program
	attached []attachment
	tags     []smcopt.Tag // of the marked: they and their listener are
	samples  map[string][]float64
}

func (s *costState) turn(b *testing.B, h host) {
	for _, a := range s.attached {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: h.cgroup, Attach: a.at, Program: s.programs[a.program]})
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
	}
	l, at := listener(b, nil, loopback4, s.tags...)
	defer unix.Close(l)
	s.measure(b, byCalls, 100, func() { handshake(b, l, at, s.tags) })
	if len(s.tags) > 0 {
		return
	}
	g, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	s.measure(b, byNet, 100, func() { goHandshake(b, g) })
	s.measure(b, settings, 1000, func() { err = unix.SetsockoptInt(l, unix.SOL_TCP, unix.TCP_NODELAY, 1) })
	s.measure(b, questions, 1000, func() { _, err = unix.GetsockoptInt(l, unix.SOL_TCP, unix.TCP_NODELAY) })
	if err != nil {
		b.Fatal(err)
	}
}

// measure notes the CPU time of the thread, which other load on the machine disturbs less than the time on the wall.
func (s *costState) measure(b *testing.B, what string, n int, do func()) {
	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			b.Fatal(err)
		}
		return ts.Nano()
	}
	for range n / 10 {
		do()
	}
	before := now()
	for range n {
		do()
	}
	if s.samples == nil {
		s.samples = make(map[string][]float64)
	}
	s.samples[what] = append(s.samples[what], float64(now()-before)/float64(n))
}

func (s *costState) print(what string) {
	if v := slices.Sorted(slices.Values(s.samples[what])); len(v) > 0 {
		fmt.Printf("  %-13s  %6.0f (%.0f-%.0f)\n", s.name, v[len(v)/2], v[len(v)/4], v[3*len(v)/4])
	}
}

func goHandshake(b *testing.B, l net.Listener) {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	c.(*net.TCPConn).SetLinger(0) // leaves no TIME_WAIT behind
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	c.Close()
	s.Close()
}

// handshake connects, accepts and closes. Marked, both ends ask.
func handshake(b *testing.B, l int, at netip.AddrPort, tags []smcopt.Tag) {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(c)
	for _, tag := range tags {
		mark(b, c, tag)
	}
	reset := &unix.Linger{Onoff: 1}
	if err := unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, reset); err != nil {
		b.Fatal(err)
	}
	if err := unix.Connect(c, sockaddr(at)); err != nil {
		b.Fatal(err)
	}
	s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(s)
	for _, tag := range tags {
		wantAnswer(b, "client", c, smc(tag))
		wantAnswer(b, "server", s, smc(tag))
	}
}
