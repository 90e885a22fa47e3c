// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// steps is what a connection between a marked client and a marked listener goes through.
var steps = []struct {
	name string
	do   func(c *optionConn) error
}{
	{"mark", func(c *optionConn) error {
		return errors.Join(smcopt.Mark(c.l.fd, c.tag), smcopt.Mark(c.client.fd, c.tag))
	}},
	{"connect", func(c *optionConn) error { return c.client.connect(c.at) }},
	{"accept", func(c *optionConn) (err error) { c.server, err = c.l.accept(); return err }},
	{"client asks", func(c *optionConn) error { c.atClient = c.client.told(true); return nil }},
	{"server asks", func(c *optionConn) error { c.atServer = c.server.toldServer(true); return nil }},
}

type optionConn struct {
	tag                smcopt.Tag
	l, client, server  bare
	at                 netip.AddrPort
	atClient, atServer told
	done               int // steps
}

func newOptionConn(t *testing.T, tag smcopt.Tag) *optionConn {
	t.Helper()
	c := &optionConn{tag: tag, server: bare{-1}}
	var errs [2]error
	c.l, c.at, errs[0] = listenBare(localhost)
	c.client, errs[1] = newBare(localhost)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func (c *optionConn) close() {
	c.client.close()
	c.server.close()
	c.l.close()
	*c = optionConn{l: bare{-1}, client: bare{-1}, server: bare{-1}}
}

// goOn does the steps up to the n-th.
func (c *optionConn) goOn(t *testing.T, n int) {
	t.Helper()
	for ; c.done < n; c.done++ {
		if err := steps[c.done].do(c); err != nil {
			t.Fatalf("%s: %v", steps[c.done].name, err)
		}
	}
}

// TestOptionThroughLife has something happen to the device between each two steps of a connection. What both ends are told is
// always the same.
func TestOptionThroughLife(t *testing.T) {
	alone(t)
	umount := func(t *testing.T, d *device) {
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		d.WaitEnd()
	}
	for _, e := range []struct {
		name    string
		happens func(t *testing.T, d *device)
		marked  told // what those are told that were only marked before it; who had connected is told SMC
	}{
		{"killed", func(_ *testing.T, d *device) { d.Kill() }, toldSMC},
		{"killed, another one mounted", func(t *testing.T, d *device) { d.Kill(); mountDevice(t) }, toldSMC},
		{"killed, replaced", func(t *testing.T, d *device) { d.Kill(); command(t, "ismfs", "mount", "--replace", d.Point).want(t, 0) }, toldSMC},
		{"killed, unmounted", func(t *testing.T, d *device) { d.Kill(); command(t, "ismfs", "umount", d.Point).want(t, 0) }, toldPlain},
		{"unmounted", umount, toldPlain},
		{"unmounted, mounted", func(t *testing.T, d *device) { umount(t, d); mountDevice(t) }, toldPlain},
		{"unmounted by force", func(t *testing.T, d *device) {
			command(t, "ismfs", "umount", "--force", d.Point).want(t, 0)
			d.WaitEnd()
		}, toldPlain},
		{"SIGTERM", func(t *testing.T, d *device) { d.Signal(syscall.SIGTERM); d.WaitEnd() }, toldPlain},
		{"switched off", func(t *testing.T, d *device) {
			if err := d.Write("active", "0"); err != nil {
				t.Fatal(err)
			}
		}, toldSMC},
	} {
		t.Run(e.name, func(t *testing.T) {
			d := mountDevice(t)
			tag := d.Tag()
			conns := make([]*optionConn, len(steps)) // one that waits before each step but the first
			for i := range conns {
				conns[i] = newOptionConn(t, tag)
				conns[i].goOn(t, i+1)
			}
			e.happens(t, d)
			for i, c := range conns {
				c.goOn(t, len(steps))
				want := toldSMC
				if i == 0 {
					want = e.marked
				}
				if c.atClient != want || c.atServer != want {
					t.Errorf("after %s: the client is told %s, the server %s; want %s", steps[i].name, c.atClient, c.atServer, want)
				}
			}
			for _, c := range conns {
				c.close()
			}
			d.stop()
		})
		// Nobody needs the programs any more: they go with the last device, or with the next one's end.
		umount(t, mountDevice(t))
		wantNoPrograms(t)
	}
}

// TestOptionAfterDeath: a killed daemon's clients announce SMC and are answered, until the mount goes. Then nothing is
// announced, and the programs stay for those who have not asked.
func TestOptionAfterDeath(t *testing.T) {
	alone(t)
	d := mountDevice(t)
	tag := d.Tag()
	d.Kill()
	wantDevices(t, tag)
	startClient(t, asUser(1000)).wantPair(localhost, tag, toldSMC)

	c := newOptionConn(t, tag)
	c.goOn(t, 2)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	wantDevices(t)
	if err := markFresh(tag); !errors.Is(err, smcopt.ErrNoDevice) {
		t.Errorf("a mark for a device that has gone: %v", err)
	}
	c.goOn(t, len(steps))
	if c.atClient != toldSMC || c.atServer != toldSMC {
		t.Errorf("the client is told %s, the server %s", c.atClient, c.atServer)
	}
	if err := smcopt.Unmark(c.l.fd); err != nil {
		t.Error(err)
	}
	command(t, "ismfs", "umount", d.Point).want(t, 7) // nothing is mounted there any more, but now nobody needs the programs
	wantNoPrograms(t)
	if v := c.server.toldServer(true); v != toldReset {
		t.Errorf("without programs an end that was SMC is told %s", v)
	}
}

// TestOptionReplaced: the next daemon joins the set of the one that died, and takes the dead tag away when it goes.
func TestOptionReplaced(t *testing.T) {
	alone(t)
	d := mountDevice(t)
	old := d.Tag()
	d.Kill()
	command(t, "ismfs", "mount", "--replace", d.Point).want(t, 0)
	takeDown(t, d.Point)
	tag := d.Tag()
	wantDevices(t, old, tag)
	c := startClient(t)
	c.wantPair(localhost, old, toldSMC) // to be declined, as libsmc has not noticed yet
	c.wantPair(localhost, tag, toldSMC)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	wantNoPrograms(t)
}

// TestChurnOption makes connections all the time while devices come and go and die: no two ends ever disagree on what was
// said. ISMFS_SOAK says for how long (make soak).
func TestChurnOption(t *testing.T) {
	mountSMC(t, "--sockets=require").stop()
	length := 4 * time.Second
	if s := os.Getenv("ISMFS_SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	end := time.Now().Add(length)
	var tag atomic.Pointer[smcopt.Tag]
	tag.Store(&smcopt.Tag{1})
	var all sync.WaitGroup
	var counts [4]map[string]int
	for i := range counts {
		counts[i] = make(map[string]int)
		all.Go(func() {
			for !t.Failed() && time.Now().Before(end) {
				if err := manyPairs(&tag, counts[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	lives := 0
	for ; !t.Failed() && time.Now().Before(end); lives++ {
		oneLife(t, &tag)
	}
	all.Wait()
	total := make(map[string]int)
	for _, c := range counts {
		for pair, n := range c {
			total[pair] += n
		}
	}
	t.Logf("%d devices; connections by what their ends were told: %v", lives, total)
	if total["SMC SMC"] == 0 || total["plain plain"] == 0 {
		t.Error("too few connections to see anything")
	}
}

// oneLife mounts a device, lets connections use it, and ends it in some way.
func oneLife(t *testing.T, tag *atomic.Pointer[smcopt.Tag]) {
	pause := func() { time.Sleep(time.Duration(rand.IntN(int(30 * time.Millisecond)))) }
	d := mountDevice(t)
	now := d.Tag()
	tag.Store(&now)
	pause()
	switch rand.IntN(4) {
	case 0:
		command(t, "ismfs", "umount", d.Point).want(t, 0)
	case 1:
		d.Signal(syscall.SIGTERM)
	case 2:
		d.Kill()
		command(t, "ismfs", "umount", d.Point).want(t, 0)
	case 3:
		d.Kill()
		pause()
		command(t, "ismfs", "mount", "--replace", d.Point).want(t, 0)
		next := d.Tag()
		tag.Store(&next)
		pause()
		command(t, "ismfs", "umount", d.Point).want(t, 0)
	}
	d.WaitEnd()
	d.stop()
}

// manyPairs makes connections to one listener, which follows the device as libsmc's do, and counts by what the ends are told.
func manyPairs(tag *atomic.Pointer[smcopt.Tag], counts map[string]int) error {
	l, at, err := listenBare(localhost)
	if err != nil {
		return err
	}
	defer l.close()
	marked := false
	for range 50 {
		// Errors are what a library meets, too: then the end is not marked, or as before.
		if smcopt.Mark(l.fd, *tag.Load()) == nil {
			marked = true
		}
		if err := onePair(l, at, marked, *tag.Load(), counts); err != nil {
			return err
		}
	}
	// A mark that was made while the last daemon ended may have lost its programs, and with them all its meaning.
	if err := smcopt.Unmark(l.fd); !errors.Is(err, smcopt.ErrNoPrograms) {
		return err
	}
	return nil
}

func onePair(l bare, at netip.AddrPort, serverMarked bool, tag smcopt.Tag, counts map[string]int) error {
	client, err := newBare(at.Addr())
	if err != nil {
		return err
	}
	defer client.close()
	clientMarked := smcopt.Mark(client.fd, tag) == nil
	pause := func() {
		if rand.IntN(8) == 0 {
			time.Sleep(time.Duration(rand.IntN(int(20 * time.Millisecond))))
		}
	}
	pause()
	if err := client.connect(at); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	pause()
	server, err := l.accept()
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer server.close()
	pause()
	a := client.told(clientMarked)
	pause()
	b := server.toldServer(serverMarked)
	counts[fmt.Sprint(a, " ", b)]++
	if !agree(a, b) {
		return fmt.Errorf("the client (marked: %v) is told %s, the server (marked: %v) %s", clientMarked, a, serverMarked, b)
	}
	return nil
}
