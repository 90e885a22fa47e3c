// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// mountElsewhere mounts a device in a mount namespace of its own, and in the network namespace n: another host, but for the
// kernel.
func mountElsewhere(n *netns) *device {
	t := n.t
	t.Helper()
	point := tempDir(t)
	d := &device{t: t, log: new(logBuffer), ended: make(chan struct{})}
	d.cmd = exec.Command("unshare", "-m", "--propagation", "private",
		filepath.Join(bin, "ismfs"), "mount", "--foreground", point)
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.do(d.cmd.Start)
	d.Point = filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "root", point)
	d.Dir = filepath.Join(d.Point, "devices", "loopback-ism")
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(d.stop)
	waitFor(t, "the other host's device", func() error {
		select {
		case <-d.ended:
			t.Fatalf("the daemon ended: %v\n%s", d.err, d.log)
		default:
		}
		_, err := os.ReadFile(filepath.Join(d.Dir, "gid"))
		return err
	})
	if isMounted(t, point) {
		t.Fatal("the other host's mount is visible here")
	}
	return d
}

// startElsewhere starts a peer in the mount namespace of a device of mountElsewhere, and in the network namespace n.
func (n *netns) startElsewhere(d *device) *peer {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	_, point, _ := strings.Cut(d.Point, "/root")
	return n.startPeer(point, func(cmd *exec.Cmd) {
		cmd.Path = "/usr/bin/nsenter"
		cmd.Args = []string{"nsenter", "-t", strconv.Itoa(d.cmd.Process.Pid), "-m", "--", self}
	})
}

// TestAnotherHost: two hosts that one kernel plays, so that the option is answered. Then it is for CLC to say no.
func TestAnotherHost(t *testing.T) {
	here := mountSMC(t)
	left, right := newNetns(t), newNetns(t)
	joinNetns(left, "veth0", []string{"10.77.0.1/24"}, right, "veth0", []string{"10.77.0.2/24"})
	there := mountElsewhere(right)
	if here.Read("gid") == there.Read("gid") {
		t.Fatal("both hosts have one GID")
	}
	one, other := left.startPeer(here.Point), right.startElsewhere(there)
	for _, c := range []struct {
		name           string
		client, server *peer
		device         *device // the server's
		address        string
	}{
		{"client here", one, other, there, "10.77.0.2:7000"},
		{"client there", other, one, here, "10.77.0.1:7000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := c.server.Listen(overSMC, "tcp", c.address)
			defer l.Close()
			before, moved := c.device.handshakes(), here.xferBytes()+there.xferBytes()
			a, b := connectTo(t, c.client, overSMC, l)
			wantTCP(a, smc.DeclPeerDecl, smc.DeclNoSMCD2Dev)
			wantTCP(b, smc.DeclNoSMCD2Dev, 0)
			exchange(a, b, 300<<10)
			if n := c.device.handshakes().since(before).ServerFallback[smc.DeclNoSMCD2Dev.String()]; n != 1 {
				t.Errorf("%d fallbacks counted, want 1", n)
			}
			if n := here.xferBytes() + there.xferBytes() - moved; n != 0 {
				t.Errorf("xfer_bytes grew by %d", n)
			}
		})
	}
	t.Run("inside", func(t *testing.T) { // on that host it is SMC-D
		a, b := connect(t, right.startElsewhere(there), overSMC, other, overSMC)
		wantWorking(there, a, b)
	})
	t.Run("plain", func(t *testing.T) {
		l := other.Listen(overSMC, "tcp", "10.77.0.2:7001")
		a, b := left.startPeer("off").MustDial(overSMC, "tcp", l.Address), l.MustAccept()
		wantTCP(a, smc.DeclNoSMCDev, 0)
		wantTCP(b, smc.DeclPeerNoSMC, 0)
		exchange(a, b, 10<<10)
	})
}
