// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A memoryCgroup is a memory cgroup of its own, of version 1 or 2.
type memoryCgroup struct {
	t   *testing.T
	dir string
	v2  bool
}

// newMemoryCgroup makes a cgroup below the root of the hierarchy, where both versions let it be. It is removed at the end of the
// test: make it before the processes that go in.
func newMemoryCgroup(t *testing.T) *memoryCgroup {
	t.Helper()
	g := &memoryCgroup{t: t}
	root, err := g.findRoot()
	if err != nil {
		t.Skipf("no memory cgroups: %v", err)
	}
	if g.dir, err = os.MkdirTemp(root, "ismfs-test-"); err != nil {
		t.Skipf("no memory cgroups: %v", err)
	}
	t.Cleanup(func() {
		waitFor(t, "the cgroup to be removed", func() error {
			if err := os.Remove(g.dir); !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		})
	})
	return g
}

func (g *memoryCgroup) findRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	err = errors.New("no cgroup file system is mounted")
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line) // source, point, type, options
		switch {
		case f[2] == "cgroup" && strings.Contains(","+f[3]+",", ",memory,"):
			return f[1], nil
		case f[2] == "cgroup2":
			// To give children the controller is no more than a promise to count.
			if err = os.WriteFile(filepath.Join(f[1], "cgroup.subtree_control"), []byte("+memory"), 0); err == nil {
				g.v2 = true
				return f[1], nil
			}
		}
	}
	return "", err
}

func (g *memoryCgroup) set(file, value string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0); err != nil {
		g.t.Fatal(err)
	}
}

// add moves a process in. What it has already stays where it was charged.
func (g *memoryCgroup) add(pid int) { g.set("cgroup.procs", strconv.Itoa(pid)) }

// addClient moves a client in, once it answers: what its start takes, more than 10 MiB with the race detector, is not of the cgroup.
func (g *memoryCgroup) addClient(c *client) {
	g.t.Helper()
	if _, err := c.call("Stat", CallArgs{Path: "/"}); err != nil {
		g.t.Fatal(err)
	}
	g.add(c.PID())
}

// limit sets the limit, and lets nothing be swapped out instead.
func (g *memoryCgroup) limit(bytes int64) {
	g.t.Helper()
	limit, noSwap := "memory.limit_in_bytes", [2]string{"memory.swappiness", "0"}
	if g.v2 {
		limit, noSwap = "memory.max", [2]string{"memory.swap.max", "0"}
	}
	g.set(limit, strconv.FormatInt(bytes, 10))
	if fileExists(filepath.Join(g.dir, noSwap[0])) {
		g.set(noSwap[0], noSwap[1])
	}
}

// shared is what the cgroup is charged of shared memory: the pages of memfds, and nothing of what its processes take to run.
func (g *memoryCgroup) shared() int64 {
	g.t.Helper()
	n, err := strconv.ParseInt(g.entry("memory.stat", "shmem"), 10, 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// wantShared waits until the cgroup is charged at least low and at most high bytes of shared memory: the kernel adds up what its
// CPUs have counted when it comes to it, at the latest after two seconds.
func (g *memoryCgroup) wantShared(what string, low, high int64) {
	g.t.Helper()
	waitFor(g.t, what, func() error {
		if n := g.shared(); n < low || n > high {
			return fmt.Errorf("%d bytes are charged, want %d to %d", n, low, high)
		}
		return nil
	})
}

// event reads one of the counts in memory.events or memory.oom_control.
func (g *memoryCgroup) event(name string) string {
	g.t.Helper()
	return g.entry(map[bool]string{true: "memory.events", false: "memory.oom_control"}[g.v2], name)
}

// entry reads one line of a file of names and values.
func (g *memoryCgroup) entry(file, name string) string {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == name {
			return f[1]
		}
	}
	return ""
}

const dmbOfMemoryTests = 16 << 20 // much more than a client that runs already takes meanwhile

// TestOwnerPays: a DMB's pages are charged to the owner that populates them, not to the daemon that made the memfd, nor to
// the peer; and not at all before that.
func TestOwnerPays(t *testing.T) {
	ofOwner, ofPeer, ofDaemon := newMemoryCgroup(t), newMemoryCgroup(t), newMemoryCgroup(t)
	d := mountDevice(t, "--dmb-type=1")
	owner, peer := startClient(t), startClient(t)
	ofOwner.addClient(owner)
	ofPeer.addClient(peer)
	ofDaemon.add(d.cmd.Process.Pid)
	const size, slack = dmbOfMemoryTests, dmbOfMemoryTests / 8
	check := func(when string, owners int64) {
		t.Helper()
		ofOwner.wantShared(when+" the owner's cgroup", owners-slack, owners+slack)
		ofPeer.wantShared(when+" the peer's cgroup", 0, slack)
		ofDaemon.wantShared(when+" the daemon's cgroup", 0, slack)
	}
	const token = "00000000000003a1"
	fd := owner.MustOpen(d.Path("dmbs", token), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err := owner.Truncate(fd, size); err != nil {
		t.Fatal(err)
	}
	check("before it is populated", 0)
	owner.MustMap(fd, size)
	check("once it is populated", size)
	peer.MustMap(peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR), size)
	check("with the peer attached", size)
	owner.Kill()
	peer.Kill()
	d.WantNothing()
	check("with both gone", 0)
}

// bystander is a client with a DMB whose life must go on, whatever happens to another.
type bystander struct {
	*client
	d       *device
	mapping int
	n       int
}

func newBystander(t *testing.T, d *device) *bystander {
	c := startClient(t)
	_, m := c.Register(d, "00000000000003b0", 65536)
	return &bystander{client: c, d: d, mapping: m}
}

// goesOn uses the DMB that is there and registers and frees another.
func (b *bystander) goesOn() {
	b.t.Helper()
	b.n++
	text := fmt.Sprintf("alive %d", b.n)
	if err := b.Store(b.mapping, []byte(text), 100); err != nil {
		b.t.Fatal(err)
	}
	if got, err := b.Load(b.mapping, len(text), 100); err != nil || string(got) != text {
		b.t.Fatalf("a bystander's DMB shows %q, %v", got, err)
	}
	fd, m := b.Register(b.d, fmt.Sprintf("00000000000003b%x", b.n), 65536)
	if err := errors.Join(b.Munmap(m), b.Close(fd)); err != nil {
		b.t.Fatal(err)
	}
}

// TestCgroupLimit: a client whose cgroup has no room for its DMB. What really happens (Linux 6.18) depends on the cgroup, not
// on this device: MADV_POPULATE_WRITE, pwrite and a store all make the kernel's OOM killer end a process of that cgroup, the
// client; with memory.oom_control 1, which only version 1 has, MADV_POPULATE_WRITE gives ENOMEM (the next test), pwrite comes
// back short, and a store sleeps until there is room. The daemon and everybody else go on, and the DMB is freed.
func TestCgroupLimit(t *testing.T) {
	g := newMemoryCgroup(t)
	d := mountDevice(t, "--dmb-type=1")
	other := newBystander(t, d)
	c := startClient(t)
	g.limit(dmbOfMemoryTests * 3 / 4)
	g.addClient(c)
	fd := c.MustOpen(d.Path("dmbs", "00000000000003a2"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err := c.Truncate(fd, dmbOfMemoryTests); err != nil {
		t.Fatal(err)
	}
	m, err := c.Mmap(fd, dmbOfMemoryTests, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Populate(m)
	t.Logf("populating gives: %v", err)
	if err == nil {
		t.Fatal("a cgroup without room for a DMB got one")
	}
	if err != unix.ENOMEM && err != unix.EFAULT { // then it was killed
		waitFor(t, "the client's end", func() error {
			if state := processState(c.PID()); state != "Z" {
				return fmt.Errorf("it is in state %s", state)
			}
			return nil
		})
		if n := g.event("oom_kill"); n == "0" {
			t.Errorf("the client is gone, but its cgroup's oom_kill is %s", n)
		}
	}
	other.goesOn()
	c.Kill()
	d.WantCount(1)
	g.wantShared("the charge to go", 0, dmbOfMemoryTests/2)
	other.goesOn()
}

// PopulateOrRemove populates a mapping and on failure gives its pages back at once: a process that has filled its cgroup
// sleeps at its next page fault, or dies of its next allocation.
func (c *client) PopulateOrRemove(mapping int) error {
	_, err := c.call("PopulateOrRemove", CallArgs{FD: mapping})
	return err
}

func (s *Calls) PopulateOrRemove(a CallArgs, r *CallReply) error {
	m, err := s.mapping(a.FD)
	if err != nil {
		return r.answer(err)
	}
	if err = unix.Madvise(m, unix.MADV_POPULATE_WRITE); err != nil {
		unix.Madvise(m, unix.MADV_REMOVE)
	}
	return r.answer(err)
}

// TestCgroupLimitAsError: with the OOM killer off the shortage is an error at populate, and all can be given back.
func TestCgroupLimitAsError(t *testing.T) {
	g := newMemoryCgroup(t)
	if g.v2 {
		t.Skip("cgroup version 2 has no switch for the OOM killer")
	}
	d := mountDevice(t, "--dmb-type=1")
	other := newBystander(t, d)
	c := startClient(t)
	g.limit(dmbOfMemoryTests * 3 / 4)
	g.set("memory.oom_control", "1")
	g.addClient(c)
	fd := c.MustOpen(d.Path("dmbs", "00000000000003a3"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err := c.Truncate(fd, dmbOfMemoryTests); err != nil {
		t.Fatal(err)
	}
	m, err := c.Mmap(fd, dmbOfMemoryTests, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		t.Fatal(err)
	}
	err = c.PopulateOrRemove(m)
	if err != unix.ENOMEM {
		t.Errorf("populating gives %v, want ENOMEM", err)
	}
	other.goesOn()
	if err := errors.Join(c.Munmap(m), c.Close(fd)); err != nil {
		t.Fatal(err)
	}
	d.WantCount(1)
	g.limit(4 * dmbOfMemoryTests)
	c.Register(d, "00000000000003a4", dmbOfMemoryTests) // with room it works
	other.goesOn()
}

// TestTooFewDescriptors: a daemon that starts with fewer descriptors than max_dmbs would take says so, refuses with ENFILE when
// there are no more, goes on with what there is, and is well again when there is room. At no time does it serve a DMB that does
// not pass through.
func TestTooFewDescriptors(t *testing.T) {
	point := tempDir(t)
	takeDown(t, point)
	logFile := filepath.Join(tempDir(t), "log")
	// Root would raise its own limit: it is started without the capability for that.
	const script = `ulimit -n 48; exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$0" mount "$1" --debug --log "$2"`
	execute(t, nil, "sh", "-euc", script, filepath.Join(bin, "ismfs"), point, logFile).want(t, 0)
	d := &device{t: t, Point: point, Dir: filepath.Join(point, "devices", "loopback-ism"), log: new(logBuffer)}
	other := newBystander(t, d)
	other.goesOn()
	c, peer := startClient(t), startClient(t)
	var fds []int
	token := func(i int) string { return fmt.Sprintf("00000000000004%02x", i) }
	var refused error
	for i := 0; i < 64 && refused == nil; i++ {
		var fd int
		if fd, refused = c.Open(d.Path("dmbs", token(i)), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); refused == nil {
			fds = append(fds, fd)
			refused = c.Truncate(fd, 4096)
		}
	}
	if refused != unix.ENFILE || len(fds) < 4 {
		t.Fatalf("after %d DMBs: %v, want ENFILE", len(fds), refused)
	}
	if d.Read("active") != "1" {
		t.Error("a control does not answer")
	}
	if err := other.Store(other.mapping, []byte("unharmed"), 200); err != nil {
		t.Error(err)
	}
	for _, fd := range fds {
		if err := c.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
	d.WantCount(1)
	other.goesOn()
	for i := range 64 {
		token := token(0x80 + i)
		ownFD, own := c.Register(d, token, 4096)
		fd := peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
		mapped := peer.MustMap(fd, 4096)
		if err := peer.Store(mapped, []byte{byte(i), 7}, 64); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Load(own, 2, 64); err != nil || got[0] != byte(i) || got[1] != 7 {
			t.Fatalf("the owner sees %v, %v: this DMB only looks shared", got, err)
		}
		if got, err := peer.Pread(fd, 2, 64); err != nil || got[1] != 7 {
			t.Fatalf("pread shows %v, %v", got, err)
		}
		if err := errors.Join(c.Munmap(own), c.Close(ownFD), peer.Munmap(mapped), peer.Close(fd)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	d.log.Write(text)
	d.wantNoData(64, 64)
	for _, want := range []string{"RLIMIT_NOFILE is too low", "out of file descriptors"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}
