// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// runDaemon is a daemon in a process of its own: "<bpffs> <tag> <rounds>". It registers the tag, says so, and leaves when its
// standard input ends. With rounds it does that many times, without waiting.
func runDaemon(args string) int {
	var bpffs, tagText string
	var rounds int
	if _, err := fmt.Sscan(args, &bpffs, &tagText, &rounds); err != nil {
		fmt.Println(err)
		return 1
	}
	tag, err := smcopt.ParseTag(tagText)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	h := host{cgroup: os.Getenv(insideVariable), bpffs: bpffs, option: testOption, program: testProgram}
	for round := 0; round == 0 || round < rounds; round++ {
		r, err := h.attach(tag)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if rounds == 0 {
			fmt.Println("registered")
			io.Copy(io.Discard, os.Stdin)
		}
		if err := r.Close(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

type daemon struct {
	c     *exec.Cmd
	stdin io.Closer
}

func startDaemon(t *testing.T, h host, tag smcopt.Tag) *daemon {
	t.Helper()
	d := &daemon{c: daemonCommand(h, tag, 0)}
	out, err := d.c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if d.stdin, err = d.c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "registered\n" {
		t.Fatalf("the daemon says %q", line)
	}
	return d
}

func daemonCommand(h host, tag smcopt.Tag, rounds int) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", daemonVariable, h.bpffs, tag, rounds))
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return c
}

func (d *daemon) kill() {
	d.c.Process.Kill()
	d.c.Wait()
}

func (d *daemon) leave(t *testing.T) {
	t.Helper()
	d.stdin.Close()
	if err := d.c.Wait(); err != nil {
		t.Fatal(err)
	}
}

func wantSet(t *testing.T, h host, want bool) {
	t.Helper()
	if _, err := os.Stat(h.set()); (err == nil) != want {
		t.Errorf("the set in bpffs: %v, want there: %v", err, want)
	}
	n := 0
	if want {
		n = len(attachments)
	}
	eventually(t, fmt.Sprintf("%d programs attached, want %d", len(query(t, h.cgroup)), n), func() bool {
		return len(query(t, h.cgroup)) == n
	})
	if _, err := os.Stat(h.base()); (err == nil) != want {
		t.Errorf("%s: %v, want there: %v", h.base(), err, want)
	}
}

func TestLastOneDetaches(t *testing.T) {
	h := newHost(t)
	wantSet(t, h, false)
	one := register(t, h, 1)
	two := register(t, h, 2)
	if _, err := h.attach(one.tag); !errors.Is(err, os.ErrExist) {
		t.Error("a tag twice:", err)
	}
	for _, r := range []*Registration{one, two} {
		wantSet(t, h, true)
		if err := errors.Join(r.Close(), r.Close(), r.Withdraw()); err != nil {
			t.Error(err)
		}
		fd := (*netns)(nil).socket(t, loopback4)
		want := error(unix.ENODEV)
		if r == two {
			want = unix.ENOPROTOOPT
			eventually(t, "detaching", func() bool { return len(query(t, h.cgroup)) == 0 })
		}
		if err := tryMark(fd, r.tag); err != want {
			t.Errorf("mark after Close: %v, want %v", err, want)
		}
	}
	wantSet(t, h, false)
}

// What was said stays said, whatever is unmounted in between.
func TestWithdraw(t *testing.T) {
	h := newHost(t)
	stays, goes := register(t, h, 1), register(t, h, 2)
	l, at := listener(t, nil, loopback4, goes.tag)
	before := dial(t, nil, at, goes.tag)
	marked := (*netns)(nil).socket(t, loopback4)
	mark(t, marked, goes.tag)

	if err := goes.Withdraw(); err != nil {
		t.Fatal(err)
	}
	if err := tryMark(marked, goes.tag); err != unix.ENODEV {
		t.Error("mark after Withdraw:", err)
	}
	wantAnswer(t, "client before", before, smc(goes.tag))
	wantAnswer(t, "server before", accept(t, l), smc(goes.tag))
	if err := connect(marked, at); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, "client marked before", marked, plain)
	wantServer(t, "its server", accept(t, l), plain)

	// The server's library moves to the other device.
	mark(t, l, stays.tag)
	after := dial(t, nil, at, stays.tag)
	wantAnswer(t, "client of the other device", after, smc(stays.tag))
	wantAnswer(t, "server of the other device", accept(t, l), smc(stays.tag))
}

// A daemon's death changes nothing for sockets; the next daemon cleans up.
func TestDaemonKilled(t *testing.T) {
	h := newHost(t)
	tag := testTag(1)
	d := startDaemon(t, h, tag)
	l, at := listener(t, nil, loopback4, tag)
	before := dial(t, nil, at, tag)
	d.kill()
	wantSet(t, h, true)
	if devices, err := h.list(); err != nil || len(devices) != 1 || devices[0] != (Device{Tag: tag}) {
		t.Errorf("%v %v, want one dead device", devices, err)
	}
	wantAnswer(t, "client before", before, smc(tag))
	wantAnswer(t, "server before, asked after", accept(t, l), smc(tag))
	after := dial(t, nil, at, tag)
	wantAnswer(t, "client after", after, smc(tag))
	wantAnswer(t, "server after", accept(t, l), smc(tag))

	next := startDaemon(t, h, testTag(2))
	mark(t, l, testTag(2))
	c := dial(t, nil, at, testTag(2))
	wantAnswer(t, "client of the next daemon", c, smc(testTag(2)))
	s := accept(t, l)
	wantAnswer(t, "server of the next daemon", s, smc(testTag(2)))
	unmark(t, l)
	next.leave(t)
	wantSet(t, h, false)
	// Without programs the question fails: it is never answered "plain".
	if _, err := ask(s); err == nil {
		t.Error("an answer without programs")
	}
}

// Who mounts again with the GID of a dead device takes its place.
func TestSameTagAgain(t *testing.T) {
	h := newHost(t)
	tag := testTag(1)
	d := startDaemon(t, h, tag)
	l, at := listener(t, nil, loopback4, tag)
	d.kill()
	next := startDaemon(t, h, tag)
	if devices, err := h.list(); err != nil || len(devices) != 1 || devices[0] != (Device{Tag: tag, Alive: true}) {
		t.Errorf("%v %v, want one living device", devices, err)
	}
	if _, err := h.attach(tag); !errors.Is(err, os.ErrExist) {
		t.Error("the tag of a living device:", err)
	}
	wantAnswer(t, "client", dial(t, nil, at, tag), smc(tag))
	wantAnswer(t, "server", accept(t, l), smc(tag))
	unmark(t, l)
	next.leave(t)
	wantSet(t, h, false)
}

// The last one leaves the programs for those who still need an answer.
func TestWaiting(t *testing.T) {
	h := newHost(t)
	n := newNetns(t)
	r := register(t, h, 1)
	l, at := listener(t, n, loopback4, r.tag)
	c := dial(t, n, at, r.tag)
	p := dial(t, n, at)
	count := func(want int) {
		t.Helper()
		wantWaiting(t, h, want)
	}
	count(4) // the listener, both its connections, the client that has asked nothing
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	wantSet(t, h, true)
	wantAnswer(t, "client", c, smc(r.tag))
	wantAnswer(t, "server", accept(t, l), smc(r.tag))
	count(2) // the listener, the plain client in its queue
	wantServer(t, "server of a plain client", accept(t, l), plain)
	count(1)
	if err := tryMark(n.socket(t, loopback4), r.tag); err != unix.ENODEV {
		t.Error("mark after Close:", err)
	}
	hangUp(t, p)
	if removed, err := h.removeUnused(); removed || err != nil {
		t.Error(removed, err)
	}
	unmark(t, l)
	count(0)
	if removed, err := h.removeUnused(); !removed || err != nil {
		t.Error(removed, err)
	}
	wantSet(t, h, false)
	if removed, err := h.removeUnused(); removed || err != nil {
		t.Error(removed, err)
	}
}

// Who waits in the queue of an un-marked listener may have been promised an answer, and is counted until it is accepted.
func TestWaitingInQueue(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	l, at := listener(t, nil, loopback4, r.tag)
	for _, tags := range [][]smcopt.Tag{nil, {r.tag}, nil} {
		c := dial(t, nil, at, tags...)
		if tags != nil {
			wantAnswer(t, "client", c, smc(r.tag))
		}
	}
	wantWaiting(t, h, 4)
	unmark(t, l)
	wantWaiting(t, h, 3)
	rest(t, r, false)
	wantAttached(t, h, true)
	wantServer(t, "the first one's server", accept(t, l), plain)
	wantWaiting(t, h, 2)
	s := accept(t, l)
	wantWaiting(t, h, 2) // it has not asked
	wantServer(t, "the second one's server", s, smc(r.tag))
	wantWaiting(t, h, 1)
	wantServer(t, "the third one's server", accept(t, l), plain)
	wantWaiting(t, h, 0)
	rest(t, r, true)
	wantAttached(t, h, false)
}

// wantWaiting counts in both ways.
func wantWaiting(t *testing.T, h host, want int) {
	t.Helper()
	if got, err := h.waiting(); err != nil || got != want {
		t.Errorf("%d sockets wait (%v), want %d", got, err, want)
	}
	c, err := newIterator(ismfsProgIsmfsTaskSockets, pinnedMap(t, h, marksName), link.IterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.iter.Close()
	if got, err := c.count(); err != nil || got != want {
		t.Errorf("%d sockets wait (%v) in the files of all processes, want %d", got, err, want)
	}
}

// A closed socket needs nothing, though the kernel frees it a little later.
func TestWaitingForTheDead(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	for range 20 {
		l, at := listener(t, nil, loopback4, r.tag)
		unasked := dial(t, nil, at, r.tag)
		hangUp(t, unasked)
		hangUp(t, accept(t, l))
		queued := dial(t, nil, at, r.tag)
		hangUp(t, queued)
		hangUp(t, l)
		if n, err := h.waiting(); n != 0 || err != nil {
			t.Fatalf("%d sockets wait (%v), all are closed", n, err)
		}
	}
}

func TestDaemonsAtOnce(t *testing.T) {
	h := newHost(t)
	var running []*exec.Cmd
	for i := range byte(4) {
		c := daemonCommand(h, testTag(i+1), 10)
		var out strings.Builder
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, c)
	}
	for _, c := range running {
		if err := c.Wait(); err != nil {
			t.Error(err, c.Stdout)
		}
	}
	wantSet(t, h, false)
}

// Without programs there is no answer: not for a client that was told SMC, not for its server.
func TestRemovedByHand(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	n := newNetns(t)
	f := newFakeHost(t, n)
	l, to := listener(t, n, f.ours, r.tag)
	half := segment{from: f.at, to: to, seq: 1, flags: flagSYN, options: ourOption(1, r.tag)}
	f.send(half)
	synack := f.receive(flagSYN | flagACK)
	queued := dial(t, n, to, r.tag)

	if err := os.RemoveAll(h.set()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "programs stay attached", func() bool { return len(query(t, h.cgroup)) == 0 })
	f.send(reply(synack, flagACK))
	wantAskError(t, "client", queued, unix.EOPNOTSUPP)
	wantAskError(t, "server", accept(t, l), unix.EOPNOTSUPP)
	wantAskError(t, "server of a half-done handshake", accept(t, l), unix.EOPNOTSUPP)
}

// Once a connection stands, the programs are not called for it any more: not for its segments, not for its end.
func TestNoCallsLater(t *testing.T) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Skip("this kernel counts no runs of programs:", err)
	}
	defer stats.Close()
	h := newHost(t)
	r := register(t, h, 1)
	first, at := listener(t, nil, loopback4, r.tag)
	second, secondAt := listenerAfterConnect(t, r.tag)
	for i, tags := range [][]smcopt.Tag{{r.tag}, nil, {r.tag}, nil} {
		l := first
		if i >= 2 {
			l, at = second, secondAt
		}
		c := dial(t, nil, at, tags...)
		s := accept(t, l)
		before := runs(t, h)
		for range 50 {
			transfer(t, c, s)
		}
		hangUp(t, c)
		hangUp(t, s)
		if after := runs(t, h); after != before || before == 0 {
			t.Errorf("marks %v: %d calls before, %d after", tags, before, after)
		}
	}
}

// listenerAfterConnect is a marked socket that has tried to connect before it listens.
func listenerAfterConnect(t *testing.T, tag smcopt.Tag) (fd int, at netip.AddrPort) {
	t.Helper()
	_, closed := bound(t, nil, loopback4)
	fd = (*netns)(nil).socket(t, loopback4)
	mark(t, fd, tag)
	if err := connect(fd, closed); err != unix.ECONNREFUSED {
		t.Fatal(err)
	}
	listen(t, fd) // at a port that the kernel chooses
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(loopback4, uint16(name.(*unix.SockaddrInet4).Port))
}

// runs returns how often the sockops program has been called.
func runs(t *testing.T, h host) uint64 {
	t.Helper()
	info, _, err := h.linkInfo(sockopsName)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s.RunCount
}
