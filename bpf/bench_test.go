// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// What the programs cost: in turns without any, with programs that do nothing (what the kernel takes for calling them), with
// ours for sockets that know nothing of them, and for marked ones. Compare medians of the rounds of one run:
//
//	go test -run '^$' -bench . -benchtime 10000x ./bpf
func BenchmarkCost(b *testing.B) {
	h := newHost(b)
	const rounds = 15
	for round := range rounds {
		b.Run(fmt.Sprintf("without/%d", round), func(b *testing.B) { costs(b, nil) })
		b.Run(fmt.Sprintf("empty/%d", round), func(b *testing.B) {
			attachEmpty(b, h)
			costs(b, nil)
		})
		r, err := h.attach(testTag(1))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("with/%d", round), func(b *testing.B) { costs(b, nil) })
		b.Run(fmt.Sprintf("marked/%d", round), func(b *testing.B) { costs(b, &r.tag) })
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
		eventually(b, "programs stay attached", func() bool { return len(query(b, h.cgroup)) == 0 })
	}
}

func attachEmpty(b *testing.B, h host) {
	for _, a := range attachments {
		kind := ebpf.CGroupSockopt
		if a.at == ebpf.AttachCGroupSockOps {
			kind = ebpf.SockOps
		}
		attachOther(b, h.cgroup, loadOther(b, kind, a.at, doNothing()), a.at)
	}
}

func costs(b *testing.B, tag *smcopt.Tag) {
	b.Run("connect+accept+close", func(b *testing.B) { cpuTime(b, func() { handshakes(b, tag) }) })
	if tag != nil {
		return
	}
	fd := (*netns)(nil).socket(b, loopback4)
	b.Run("setsockopt", func(b *testing.B) {
		cpuTime(b, func() {
			for b.Loop() {
				if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("getsockopt", func(b *testing.B) {
		cpuTime(b, func() {
			for b.Loop() {
				if _, err := unix.GetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// cpuTime adds the CPU time of a benchmark's thread, which other load on the machine disturbs less than the time on the wall.
func cpuTime(b *testing.B, run func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			b.Fatal(err)
		}
		return ts.Nano()
	}
	before := now()
	run()
	b.ReportMetric(float64(now()-before)/float64(b.N), "cpu-ns/op")
}

// handshakes connects, accepts and closes. Marked, both ends are marked and ask.
func handshakes(b *testing.B, tag *smcopt.Tag) {
	var tags []smcopt.Tag
	if tag != nil {
		tags = []smcopt.Tag{*tag}
	}
	l, at := listener(b, nil, loopback4, tags...)
	reset := &unix.Linger{Onoff: 1} // leaves no TIME_WAIT behind
	to := sockaddr(at)
	for b.Loop() {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		for _, tag := range tags {
			mark(b, c, tag)
		}
		if err := unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, reset); err != nil {
			b.Fatal(err)
		}
		if err := unix.Connect(c, to); err != nil {
			b.Fatal(err)
		}
		s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		for _, tag := range tags {
			wantAnswer(b, "client", c, smc(tag))
			wantAnswer(b, "server", s, smc(tag))
		}
		unix.Close(c)
		unix.Close(s)
	}
}
