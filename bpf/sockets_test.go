// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

func testTag(b byte) smcopt.Tag { return smcopt.Tag{b, 1, 2, 3, 4, 5, 6} }

// mark, unmark and ask do as smcopt does, with the tests' option number.
func mark(t testing.TB, fd int, tag smcopt.Tag) {
	t.Helper()
	if err := tryMark(fd, tag); err != nil {
		t.Fatal("mark:", err)
	}
}

func tryMark(fd int, tag smcopt.Tag) error { return setWord(fd, 1, tag) }

func unmark(t testing.TB, fd int) {
	t.Helper()
	if err := setWord(fd, 0, smcopt.Tag{}); err != nil {
		t.Fatal("unmark:", err)
	}
}

func setWord(fd int, head byte, tag smcopt.Tag) error {
	word := key(tag)
	word[0] = head
	return unix.SetsockoptUint64(fd, smcopt.Level, testOption, binary.NativeEndian.Uint64(word[:]))
}

func ask(fd int) (smcopt.Answer, error) {
	v, err := unix.GetsockoptUint64(fd, smcopt.Level, testOption)
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	return smcopt.Answer{State: smcopt.State(b[0]), Tag: smcopt.Tag(b[1:])}, err
}

func wantAnswer(t testing.TB, who string, fd int, want smcopt.Answer) {
	t.Helper()
	if got, err := ask(fd); err != nil || got != want {
		t.Errorf("%s: %v %v (%v), want %v %v", who, got.State, got.Tag, err, want.State, want.Tag)
	}
}

// wantServer is wantAnswer for an accepted socket, which has no answer if its client was told nothing.
func wantServer(t testing.TB, who string, fd int, want smcopt.Answer) {
	t.Helper()
	if want == plain {
		wantAskError(t, who, fd, unix.ENODATA)
		return
	}
	wantAnswer(t, who, fd, want)
}

func wantAskError(t testing.TB, who string, fd int, want error) {
	t.Helper()
	if got, err := ask(fd); !errors.Is(err, want) {
		t.Errorf("%s: %v (%v), want %v", who, got.State, err, want)
	}
}

var plain = smcopt.Answer{State: smcopt.Plain}

func smc(tag smcopt.Tag) smcopt.Answer { return smcopt.Answer{State: smcopt.SMC, Tag: tag} }

// A netns is a network namespace with a thread in it. Nil is that of the test.
type netns struct{ jobs chan func() }

func newNetns(t testing.TB) *netns {
	t.Helper()
	n := &netns{make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.jobs) })
	n.run(t, "ip", "link", "set", "lo", "up")
	return n
}

func (n *netns) do(t testing.TB, f func() error) {
	t.Helper()
	var err error
	if n == nil {
		err = f()
	} else {
		done := make(chan struct{})
		finished := false
		n.jobs <- func() {
			defer close(done) // also after a t.Fatal, which ends that goroutine
			err = f()
			finished = true
		}
		<-done
		if !finished {
			t.FailNow()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (n *netns) run(t testing.TB, name string, args ...string) {
	t.Helper()
	n.do(t, func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
		}
		return nil
	})
}

// path names the namespace for ip link set netns.
func (n *netns) path(t testing.TB) (path string) {
	n.do(t, func() error {
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		return nil
	})
	return path
}

// join connects two namespaces by a pair of veth devices.
func join(t testing.TB, a *netns, aDev, aAddr string, b *netns, bDev, bAddr string) {
	t.Helper()
	a.run(t, "ip", "link", "add", aDev, "type", "veth", "peer", "name", bDev, "netns", b.path(t))
	a.run(t, "ip", "addr", "add", aAddr, "dev", aDev)
	a.run(t, "ip", "link", "set", aDev, "up")
	b.run(t, "ip", "addr", "add", bAddr, "dev", bDev)
	b.run(t, "ip", "link", "set", bDev, "up")
}

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func (n *netns) socket(t testing.TB, a netip.Addr) (fd int) {
	t.Helper()
	domain := unix.AF_INET
	if a.Is6() {
		domain = unix.AF_INET6
	}
	n.do(t, func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	impatient(t, fd)
	return fd
}

// impatient lets no call of a socket hang the test.
func impatient(t testing.TB, fd int) {
	t.Helper()
	for _, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, name, &unix.Timeval{Sec: 10}); err != nil {
			t.Fatal(err)
		}
	}
}

func bound(t testing.TB, n *netns, a netip.Addr) (fd int, at netip.AddrPort) {
	t.Helper()
	fd = n.socket(t, a)
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(a, 0))); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := 0
	switch s := name.(type) {
	case *unix.SockaddrInet4:
		port = s.Port
	case *unix.SockaddrInet6:
		port = s.Port
	}
	return fd, netip.AddrPortFrom(a, uint16(port))
}

func listen(t testing.TB, fd int) {
	t.Helper()
	if err := unix.Listen(fd, 128); err != nil {
		t.Fatal(err)
	}
}

// listener returns a listening socket, marked if there is a tag.
func listener(t testing.TB, n *netns, a netip.Addr, tags ...smcopt.Tag) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, at = bound(t, n, a)
	for _, tag := range tags {
		mark(t, fd, tag)
	}
	listen(t, fd)
	return fd, at
}

// connect connects. A signal, such as Go's own preemption, ends connect(2) but not the connecting.
func connect(fd int, to netip.AddrPort) error {
	err := unix.Connect(fd, sockaddr(to))
	for err == unix.EINTR {
		if _, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil {
			continue
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || errno == 0 {
			return err
		}
		return unix.Errno(errno)
	}
	return err
}

// dial returns a connected socket, marked if there is a tag.
func dial(t testing.TB, n *netns, to netip.AddrPort, tags ...smcopt.Tag) int {
	t.Helper()
	fd := n.socket(t, to.Addr())
	for _, tag := range tags {
		mark(t, fd, tag)
	}
	if err := connect(fd, to); err != nil {
		t.Fatal("connect:", err)
	}
	return fd
}

func accept(t testing.TB, fd int) int {
	t.Helper()
	c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	for err == unix.EINTR {
		c, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		t.Fatal("accept:", err)
	}
	t.Cleanup(func() { unix.Close(c) })
	impatient(t, c)
	return c
}

// hangUp closes a socket but leaves its number taken, for the close at the end of the test.
func hangUp(t testing.TB, fd int) {
	t.Helper()
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}

// transfer moves a byte each way.
func transfer(t testing.TB, client, server int) {
	t.Helper()
	for _, way := range [][2]int{{client, server}, {server, client}} {
		b := []byte{0}
		if _, err := unix.Write(way[0], []byte{42}); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(way[1], b); err != nil || n != 1 || b[0] != 42 {
			t.Fatal("read:", n, err, b)
		}
	}
}

func native32(v uint32) (b [4]byte) {
	binary.NativeEndian.PutUint32(b[:], v)
	return b
}

// pinnedMap opens one of a set's maps.
func pinnedMap(t testing.TB, h host, name string) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(mapPin(h.set(), name), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// query returns the programs attached to a cgroup.
func query(t testing.TB, cgroup string) (programs []string) {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, a := range attachments {
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: a.at})
		if err != nil {
			t.Fatal(err)
		}
		for range r.Programs {
			programs = append(programs, a.program)
		}
	}
	return programs
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error(what)
			return
		}
	}
}
