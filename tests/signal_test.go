// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEndSignals: SIGTERM and SIGINT end a daemon in order.
func TestEndSignals(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGTERM": unix.SIGTERM, "SIGINT": unix.SIGINT} {
		t.Run(name+", nothing open", func(t *testing.T) { endIdle(t, sig) })
		t.Run(name+", a DMB leased", func(t *testing.T) { endDraining(t, sig) })
		t.Run(name+", busy without a lease", func(t *testing.T) { endBusy(t, sig) })
		t.Run(name+" twice", func(t *testing.T) { endTwice(t, sig) })
	}
}

func endIdle(t *testing.T, sig syscall.Signal) {
	d := mountDevice(t)
	d.shell("echo > dmbs/00000000000051a1; truncate -s 4096 dmbs/00000000000051a1") // no obstacle: it is nobody's lease
	d.Signal(sig)
	d.wantOrderlyEnd()
}

// wantOrderlyEnd waits until the daemon has ended with exit code 0 and its mount is gone.
func (d *device) wantOrderlyEnd() {
	d.t.Helper()
	if err := d.WaitEnd(); err != nil {
		d.t.Errorf("the daemon ends with %v", err)
	}
	if isMounted(d.t, d.Point) {
		d.t.Error("the tree is still mounted")
	}
}

// wantDraining waits until nothing can be registered any more.
func (d *device) wantDraining(c *client) {
	d.t.Helper()
	n := 0
	waitFor(d.t, "registering to be refused", func() error {
		n++
		fd, err := c.Open(d.Path("dmbs", fmt.Sprintf("00000000000b%04x", n)), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
		if err == nil {
			c.Close(fd)
		}
		if err != unix.ENODEV {
			return fmt.Errorf("it gives %v, not ENODEV", err)
		}
		return nil
	})
	if s := d.Read("active"); s != "drain" {
		d.t.Errorf("active is %q", s)
	}
}

func endDraining(t *testing.T, sig syscall.Signal) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t)
	const token = "00000000000051a2"
	fd, own := owner.Register(d, token, 64<<10)
	d.Signal(sig)
	d.wantDraining(owner)
	// It goes on serving what there is: a peer attaches, bytes cross.
	peerFD := peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
	mapped := peer.MustMap(peerFD, 64<<10)
	if err := peer.Store(mapped, []byte("while draining"), 100); err != nil {
		t.Fatal(err)
	}
	if got, err := owner.Load(own, 14, 100); err != nil || string(got) != "while draining" {
		t.Errorf("the owner reads %q, %v", got, err)
	}
	d.WantCount(1)
	for _, err := range []error{peer.Munmap(mapped), peer.Close(peerFD), owner.Munmap(own)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.WantCount(1) // still leased, so still served
	if err := owner.Close(fd); err != nil {
		t.Fatal(err)
	}
	d.wantOrderlyEnd()
}

// endBusy: what is no connection does not keep a daemon from ending: a shell's directory, a shell's DMB, a mapping of a DMB
// that is closed.
func endBusy(t *testing.T, sig syscall.Signal) {
	d := mountDevice(t)
	c := startClient(t, func(cmd *exec.Cmd) { cmd.Dir = d.Path("dmbs") })
	c.MustOpen(d.Path("dmbs", "00000000000051a4"), unix.O_RDWR|unix.O_CREAT)
	fd, _ := c.Register(d, "00000000000051a5", 4096)
	if err := c.Close(fd); err != nil {
		t.Fatal(err)
	}
	d.Signal(sig)
	d.wantOrderlyEnd()
}

func endTwice(t *testing.T, sig syscall.Signal) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t)
	const token = "00000000000051a3"
	fd, own := owner.Register(d, token, 64<<10)
	mapped := peer.MustMap(peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR), 64<<10)
	d.Signal(sig)
	d.wantDraining(owner)
	d.Signal(sig)
	d.wantOrderlyEnd()
	if err := peer.Store(mapped, []byte("after the end"), 100); err != nil {
		t.Fatal(err)
	}
	for how, read := range map[string]func() ([]byte, error){
		"mapping": func() ([]byte, error) { return owner.Load(own, 13, 100) },
		"pread":   func() ([]byte, error) { return owner.Pread(fd, 13, 100) },
	} {
		if got, err := read(); err != nil || string(got) != "after the end" {
			t.Errorf("the owner reads %q, %v by its %s", got, err, how)
		}
	}
}

// TestNotify: under systemd (Type=notify) the daemon says when it is ready and when it stops.
func TestNotify(t *testing.T) {
	path := filepath.Join(tempDir(t), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	d := mountDevice(t)
	next := func() string {
		var buf [256]byte
		socket.SetReadDeadline(time.Now().Add(patience))
		n, err := socket.Read(buf[:])
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	if word := next(); word != "READY=1" {
		t.Errorf("the first word is %q", word)
	}
	d.Signal(unix.SIGTERM)
	if word := next(); word != "STOPPING=1" {
		t.Errorf("the second word is %q", word)
	}
	d.wantOrderlyEnd()
}
