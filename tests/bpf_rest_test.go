// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// While no process uses a device, the programs are not attached: sockets of others pay nothing.

// attached returns which of the programs are.
func attached(t *testing.T) (links []string) {
	t.Helper()
	entries, err := os.ReadDir(programsDir + "/v2/links")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		links = append(links, e.Name())
	}
	return links
}

// wantRest waits until nothing is attached.
func wantRest(t *testing.T) {
	t.Helper()
	waitFor(t, "the programs to be detached", func() error {
		if links := attached(t); len(links) > 0 {
			return fmt.Errorf("%v are attached", links)
		}
		return nil
	})
	if err := markFresh(smcopt.Tag{1}); !errors.Is(err, smcopt.ErrNoPrograms) {
		t.Errorf("a mark at rest: %v", err)
	}
}

// wantIdle waits until the daemon has said that no process uses the device, and done what follows.
func (d *device) wantIdle(tag smcopt.Tag) {
	d.t.Helper()
	waitFor(d.t, "the device to be idle", func() error {
		_, err := os.Stat(filepath.Join(programsDir, "v2/devices", tag.String(), "idle"))
		return err
	})
	dir, err := os.Open(programsDir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil { // whoever changes the set has it
		d.t.Fatal(err)
	}
}

// TestOptionRests: the programs are there when the call for a process's block returns, and go when the last process has gone,
// however it ends.
func TestOptionRests(t *testing.T) {
	alone(t)
	d := mountDevice(t, "--sockets=require")
	tag := d.Tag()
	wantRest(t)
	var clients []*client
	for range 3 {
		c := startClient(t)
		_, err := c.Open(d.Path("procs", "1073741823"), unix.O_RDWR|unix.O_CREAT) // who gets no block is not waited for
		wantErrno(t, "another's block", err, unix.EPERM)
		c.Block(d)
		c.wantPair(localhost, tag, toldSMC)
		clients = append(clients, c)
	}
	for _, c := range clients {
		if n := len(attached(t)); n != 3 {
			t.Errorf("%d programs are attached", n)
		}
		c.Kill()
	}
	wantRest(t)
	if !infoOf(t, d.Point).Sockets { // it uses the device itself
		t.Error("ismfs info says that sockets are not covered")
	}
	wantRest(t)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	d.WaitEnd()
	wantNoPrograms(t)
}

// TestOptionAfterRest: the first connection after a rest is SMC-D, of libsmc and of programs under smc_run.
func TestOptionAfterRest(t *testing.T) {
	alone(t)
	d := mountSMC(t)
	wantRest(t)
	client, server := startPeer(t, d.Point), startPeer(t, d.Point)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	client.Kill()
	server.Kill()
	need(t, "redis-server", "redis-cli")
	wantRest(t)
	port, _ := d.startRedis(underRun)
	d.wantSMC(1, func() { d.run(underRun, "redis-cli", "-p", port, "ping") })
}

// TestOptionRestOfTwo: a process that uses one device keeps the programs, whichever other devices there are. A dead daemon's
// count no more.
func TestOptionRestOfTwo(t *testing.T) {
	alone(t)
	one := mountDevice(t)
	wantRest(t)
	two := mountDevice(t)
	tag, other := one.Tag(), two.Tag()
	if n := len(attached(t)); n != 3 {
		t.Errorf("beside a device at rest, %d programs are attached for a new one", n)
	}
	c := startClient(t)
	c.Block(one)
	two.wantIdle(other)
	c.wantPair(localhost, tag, toldSMC)
	c.wantPair(localhost, other, toldSMC)
	c.Kill()
	wantRest(t)
	c = startClient(t)
	c.Block(two)
	c.wantPair(localhost, tag, toldSMC)
	two.Kill()
	c.wantPair(localhost, other, toldSMC)
	command(t, "ismfs", "umount", two.Point).want(t, 0)
	wantRest(t)
}

// TestOptionRestWaits: a marked listener that outlives the process that used the device keeps the programs, until it is closed.
func TestOptionRestWaits(t *testing.T) {
	alone(t)
	d := mountDevice(t)
	tag := d.Tag()
	c := startClient(t)
	c.Block(d)
	l, at, err := listenBare(localhost) // as one that a child has inherited
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := smcopt.Mark(l.fd, tag); err != nil {
		t.Fatal(err)
	}
	c.Kill()
	d.wantIdle(tag)
	conn := &optionConn{tag: tag, l: l, at: at, server: bare{-1}}
	if conn.client, err = newBare(localhost); err != nil {
		t.Fatal(err)
	}
	conn.goOn(t, len(steps))
	if conn.atClient != toldSMC || conn.atServer != toldSMC {
		t.Errorf("the client is told %s, the server %s", conn.atClient, conn.atServer)
	}
	conn.close()
	wantRest(t)
}
