// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// wantAttached checks at once: Use and Rest leave nothing for later.
func wantAttached(t *testing.T, h host, want bool) {
	t.Helper()
	n := 0
	if want {
		n = len(attachments)
	}
	if got := query(t, h.cgroup); len(got) != n {
		t.Errorf("attached are %v, want all: %v", got, want)
	}
	if _, err := os.Stat(h.set()); err != nil {
		t.Errorf("the set: %v", err)
	}
}

func use(t *testing.T, r *Registration) {
	t.Helper()
	check(t, r.Use())
}

// rest calls Rest and checks what it returns.
func rest(t *testing.T, r *Registration, want bool) {
	t.Helper()
	if done, err := r.Rest(); done != want || err != nil {
		t.Errorf("Rest: %v (%v), want %v", done, err, want)
	}
}

func done(t *testing.T, r *Registration, want bool) {
	t.Helper()
	if last := r.Done(); last != want {
		t.Errorf("Done: the last one: %v, want %v", last, want)
	}
}

// The programs are attached from the first process that uses a device to the last one.
func TestUseAndRest(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	wantAttached(t, h, true)
	rest(t, r, true)
	wantAttached(t, h, false)
	var report Report
	if err := h.probe(&report); err != nil || report.Attached || !report.Devices[0].Idle {
		t.Errorf("%+v (%v), want a set at rest", report, err)
	}
	fd := (*netns)(nil).socket(t, loopback4)
	if err := tryMark(fd, r.tag); err != unix.ENOPROTOOPT {
		t.Errorf("a mark at rest: %v", err)
	}
	for range 3 {
		use(t, r)
		wantAttached(t, h, true)
		mark(t, fd, r.tag)
		unmark(t, fd)
		use(t, r)
		done(t, r, false)
		rest(t, r, true)
		wantAttached(t, h, true)
		done(t, r, true)
		rest(t, r, true)
		wantAttached(t, h, false)
	}
	l, at := listener(t, nil, loopback4)
	use(t, r)
	mark(t, l, r.tag)
	wantAnswer(t, "client", dial(t, nil, at, r.tag), smc(r.tag))
	wantAnswer(t, "server", accept(t, l), smc(r.tag))
	unmark(t, l)
	done(t, r, true)
	rest(t, r, true)
	check(t, r.Close())
	wantSet(t, h, false)
	check(t, r.Use()) // of one that has gone nothing is attached
	wantSet(t, h, false)
}

// Sockets that need the programs keep them, whoever has them now: a marked listener whose process has gone, a connection that
// nobody has asked about, a client that is still to connect.
func TestRestWaits(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	use(t, r)
	l, at := listener(t, nil, loopback4, r.tag)
	client := (*netns)(nil).socket(t, loopback4)
	mark(t, client, r.tag)
	done(t, r, true)
	rest(t, r, false)
	wantAttached(t, h, true)
	check(t, connect(client, at))
	s := accept(t, l)
	unmark(t, l)
	hangUp(t, l)
	rest(t, r, false)
	wantAnswer(t, "client", client, smc(r.tag))
	rest(t, r, false)
	wantAttached(t, h, true)
	wantAnswer(t, "server", s, smc(r.tag))
	rest(t, r, true)
	wantAttached(t, h, false)
}

// One set serves all devices: it rests when all do. One that ends, or is killed, uses nothing any more.
func TestRestOfSeveral(t *testing.T) {
	h := newHost(t)
	one, two := register(t, h, 1), register(t, h, 2)
	rest(t, one, true)
	wantAttached(t, h, true) // nobody has said yet that the other one is not used
	rest(t, two, true)
	wantAttached(t, h, false)
	use(t, two)
	wantAttached(t, h, true)
	rest(t, one, true)
	wantAttached(t, h, true)
	use(t, one) // attached already
	done(t, two, true)
	rest(t, two, true)
	wantAttached(t, h, true)
	done(t, one, true)
	rest(t, one, true)
	wantAttached(t, h, false)

	next := startDaemon(t, h, testTag(3))
	wantAttached(t, h, true)
	next.leave(t)
	wantAttached(t, h, false)

	killed := startDaemon(t, h, testTag(4))
	killed.kill()
	wantAttached(t, h, true)
	if removed, err := h.removeUnused(); removed || err != nil {
		t.Error(removed, err)
	}
	wantAttached(t, h, false)
}

// A dead daemon's listeners keep the programs, though another daemon's device is not used.
func TestRestBesideTheDead(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	dead := startDaemon(t, h, testTag(2))
	l, at := listener(t, nil, loopback4, testTag(2))
	dead.kill()
	rest(t, r, false)
	wantAttached(t, h, true)
	wantAnswer(t, "client", dial(t, nil, at, testTag(2)), smc(testTag(2)))
	wantAnswer(t, "server", accept(t, l), smc(testTag(2)))
	hangUp(t, l)
	rest(t, r, true)
	wantAttached(t, h, false)

	again := startDaemon(t, h, testTag(2)) // that it was idle before, or dead, means nothing
	wantAttached(t, h, true)
	rest(t, r, true)
	wantAttached(t, h, true)
	again.kill()
}

// A daemon that was killed while it detached leaves some of the programs. Who uses the set next completes them.
func TestRestInterrupted(t *testing.T) {
	h := newHost(t)
	for n := range attachments {
		r := register(t, h, 1)
		rest(t, r, true)
		use(t, r)
		for _, a := range attachments[n:] {
			check(t, h.detach(a))
		}
		check(t, h.setIdle(r.tag, true))
		r.idle = true
		use(t, r)
		wantAttached(t, h, true)
		for _, a := range attachments[n:] {
			check(t, h.detach(a))
		}
		other := register(t, h, 2)
		wantAttached(t, h, true)
		check(t, errors.Join(other.Close(), r.Close()))
		wantSet(t, h, false)
	}
}

// While a set rests, another one can come. It is not joined by a second one then.
func TestOtherSetMeanwhile(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	rest(t, r, true)
	elsewhere := h
	elsewhere.bpffs = t.TempDir()
	check(t, elsewhere.mountBPFFS())
	defer unix.Unmount(elsewhere.bpffs, 0)
	other, err := elsewhere.attach(testTag(2))
	check(t, err)
	if err := r.Use(); !errors.Is(err, ErrOtherSet) {
		t.Error(err)
	}
	var report Report
	if err := h.probe(&report); !errors.Is(err, ErrOtherSet) {
		t.Error("probe:", err)
	}
	check(t, other.Close())
	eventually(t, "the other programs stay attached", func() bool { return len(query(t, h.cgroup)) == 0 })
	use(t, r)
	wantAttached(t, h, true)
}

func TestUseAfterRemoval(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	rest(t, r, true)
	check(t, os.RemoveAll(h.set()))
	if err := r.Use(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	done(t, r, true)
	rest(t, r, true)
}

// A container's daemon, which may not see where the set was attached, does not detach it.
func TestNoRestInContainer(t *testing.T) {
	h := newHost(t)
	h.wholeHost = false
	r := register(t, h, 1)
	rest(t, r, true)
	wantAttached(t, h, true)
}

// A container's daemon that joins a set at rest attaches it where it can. The host's takes it back to where all are covered.
func TestUseBesideContainer(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	rest(t, r, true)
	container := inContainer(t, h)
	register(t, container, 2)
	if n := len(query(t, container.cgroup)); n != len(attachments) {
		t.Errorf("%d programs are attached to the container", n)
	}
	wantAttached(t, h, false)
	use(t, r)
	wantAttached(t, h, true)
	if n := len(query(t, container.cgroup)); n != 0 {
		t.Errorf("%d programs are attached to the container still", n)
	}
	done(t, r, true)
	rest(t, r, true)
	wantAttached(t, h, true) // the container's device counts as used
}

// Whoever Use has returned to can mark, though the programs are being detached when it is called.
func TestUseNeverLate(t *testing.T) {
	h := newHost(t)
	one, two := register(t, h, 1), register(t, h, 2)
	rested := 0
	for range 25 {
		var both sync.WaitGroup
		both.Go(func() {
			for _, r := range []*Registration{one, two} {
				if _, err := r.Rest(); err != nil {
					t.Error(err)
				}
			}
		})
		for _, r := range []*Registration{one, two} {
			both.Go(func() {
				if err := useOnce(r); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if len(query(t, h.cgroup)) == 0 {
			rested++
		}
	}
	t.Logf("at rest in the end: %d of 25", rested)
	rest(t, one, true)
	rest(t, two, true)
	wantAttached(t, h, false)
}

func useOnce(r *Registration) error {
	defer r.Done()
	if err := r.Use(); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return tryMark(fd, r.tag)
}
