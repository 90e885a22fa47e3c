// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUmountOrdinary: with nothing in use `ismfs umount` ends the device; what shells have made is no obstacle.
func TestUmountOrdinary(t *testing.T) {
	d := mountDevice(t)
	d.shell("echo > dmbs/0000000000000a01; truncate -s 65536 dmbs/0000000000000a01; echo > dmbs/0000000000000a02")
	d.WantCount(2)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	d.wantOrderlyEnd()
	command(t, "ismfs", "umount", d.Point).want(t, 7, d.Point)
}

func TestUmountOfNothing(t *testing.T) {
	dir := tempDir(t)
	command(t, "ismfs", "umount", dir).want(t, 7, dir)
	command(t, "ismfs", "umount", dir+"/missing").want(t, 7)
	command(t, "ismfs", "umount").want(t, 2)
	command(t, "ismfs", "umount", "/proc").want(t, 7) // it takes down nothing but its own
	if !fileExists("/proc/self") {
		t.Fatal("it has unmounted /proc")
	}
}

func TestUmountOfDead(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t)
	_, m := c.Register(d, "0000000000000a03", 4096)
	d.Kill()
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	if isMounted(t, d.Point) {
		t.Error("the dead mount is still there")
	}
	if err := c.Store(m, []byte("goes on"), 32); err != nil {
		t.Error(err)
	}
	command(t, "ismfs", "umount", d.Point).want(t, 7)
}

// TestUmountInUse: it refuses while anything is in use and says whose it is. What is refused changes nothing.
func TestUmountInUse(t *testing.T) {
	t.Run("leased DMB", func(t *testing.T) {
		d := mountDevice(t)
		owner, peer := startClient(t), startClient(t)
		const token = "0000000000000a04"
		owner.Register(d, token, 65536)
		command(t, "ismfs", "umount", d.Point).want(t, 6, token, "pid "+strconv.Itoa(owner.PID()), "65536", "no peer", "--force", "drain")
		peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
		command(t, "ismfs", "umount", d.Point).want(t, 6, token, "a peer attached")
		wantError(t, "drain", d.Write("active", "drain"), nil)
		r := command(t, "ismfs", "umount", d.Point)
		r.want(t, 6, "the device drains: wait")
		if strings.Contains(r.Stderr, "echo drain") {
			t.Errorf("it advises what has been done: %s", r.Stderr)
		}
		wantError(t, "switch on", d.Write("active", "1"), nil)
		if s := d.Read("active"); s != "1" {
			t.Errorf("a refused umount leaves active %q", s)
		}
		owner.Kill()
		peer.Kill()
		d.WantNothing()
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		d.wantOrderlyEnd()
	})
	t.Run("peer of a gone owner", func(t *testing.T) {
		d := mountDevice(t)
		owner, peer := startClient(t), startClient(t)
		const token = "0000000000000a05"
		owner.Register(d, token, 65536)
		peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
		owner.Kill()
		waitFor(t, "the owner to be gone", func() error {
			if fileExists(d.Path("dmbs", token)) {
				return errors.New("its DMB is still found")
			}
			return nil
		})
		command(t, "ismfs", "umount", d.Point).want(t, 6, "pid "+strconv.Itoa(peer.PID()))
	})
	t.Run("working directory", func(t *testing.T) {
		d := mountDevice(t)
		shell := exec.Command("sleep", "600")
		shell.Dir = d.Path("dmbs")
		shell.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := shell.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() {
			shell.Process.Kill()
			shell.Wait()
		}
		t.Cleanup(end)
		r := command(t, "ismfs", "umount", d.Point)
		r.want(t, 6, fmt.Sprintf("pid %d (sleep) has %s as its working directory", shell.Process.Pid, d.Path("dmbs")), "cd /", "--force")
		if strings.Contains(r.Stderr, "drain") {
			t.Errorf("it advises a drain, which does not help: %s", r.Stderr)
		}
		end()
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		d.wantOrderlyEnd()
	})
	t.Run("mapping of a closed DMB", func(t *testing.T) {
		d := mountDevice(t)
		c := startClient(t)
		const token = "0000000000000a08"
		fd, _ := c.Register(d, token, 65536)
		if err := c.Close(fd); err != nil {
			t.Fatal(err)
		}
		d.WantCount(0)
		command(t, "ismfs", "umount", d.Point).want(t, 6, "pid "+strconv.Itoa(c.PID()), token)
		c.Kill()
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		d.wantOrderlyEnd()
	})
	t.Run("open control", func(t *testing.T) {
		d := mountDevice(t)
		c := startClient(t)
		fd := c.MustOpen(d.Path("ueid"), unix.O_RDONLY)
		command(t, "ismfs", "umount", d.Point).want(t, 6, fmt.Sprintf("pid %d (", c.PID()), d.Path("ueid")+" open", "close")
		if err := c.Close(fd); err != nil {
			t.Fatal(err)
		}
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		d.wantOrderlyEnd()
	})
}

// TestUmountForce aborts: programs see their DMBs withdrawn, or the tree gone, and sleepers wake.
func TestUmountForce(t *testing.T) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t)
	const token = "0000000000000a06"
	fd, own := owner.Register(d, token, 65536)
	_, block := owner.Block(d)
	peerFD := peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
	mapped := peer.MustMap(peerFD, 65536)
	sleeper := owner.Sleeper(own, offSequence)
	word := owner.Word(block, offDeviceWord)
	command(t, "ismfs", "umount", "--force", d.Point).want(t, 0)
	if isMounted(t, d.Point) {
		t.Error("the tree is still mounted")
	}
	wantWoken(t, sleeper)
	if owner.Word(block, offDeviceWord) == word {
		t.Error("the device word has not moved")
	}
	const offState, inactive = 16, 0
	if s := owner.Word(block, offState); s != inactive {
		t.Errorf("the block says state %d", s)
	}
	for who, stat := range map[string]func() (unix.Stat_t, error){
		"owner": func() (unix.Stat_t, error) { return owner.Fstat(fd) },
		"peer":  func() (unix.Stat_t, error) { return peer.Fstat(peerFD) },
	} {
		if st, err := stat(); err != unix.ENOTCONN && (err != nil || st.Nlink != 0) {
			t.Errorf("the %s's fstat: st_nlink %d, %v; want 0 or ENOTCONN", who, st.Nlink, err)
		}
	}
	if err := peer.Store(mapped, []byte("no SIGBUS"), 100); err != nil {
		t.Error(err)
	}
	owner.Kill()
	peer.Kill()
	d.wantOrderlyEnd()
}

func TestUmountForceIdle(t *testing.T) {
	d := mountDevice(t)
	command(t, "ismfs", "umount", "--force", d.Point).want(t, 0)
	d.wantOrderlyEnd()
	command(t, "ismfs", "umount", "--force", d.Point).want(t, 7)
}

func TestUmountByOthers(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t)
	c.Register(d, "0000000000000a07", 4096)
	for _, args := range [][]string{{"umount", d.Point}, {"umount", "--force", d.Point}} {
		execute(t, user(1234), "ismfs", args...).want(t, 4)
		if !isMounted(t, d.Point) || d.Read("active") != "1" {
			t.Fatalf("%v by an ordinary user did something", args)
		}
	}
	d.Kill()
	execute(t, user(1234), "ismfs", "umount", d.Point).want(t, 4)
}
