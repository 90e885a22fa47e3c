// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// The harness of the tests of smc_run: programs as Debian has them, under it or plain.
//
//	d := mountSMC(t)
//	p := need(t, "redis-server", "redis-benchmark")          // skips, but not in CI
//	server := d.start(underRun, "redis-server", "--port", port)
//	d.wantSMC(2, func() { d.run(underRun, "redis-cli", …) }) // two connections, SMC-D at both ends, and no fallback
//
// What a program moves is asserted by wantGrowth, exactly, where it is known, and by its checksum.

// launch says how a program is started.
type launch string

const (
	underRun launch = "smc_run"
	asItIs   launch = "plain"
)

// need skips a test on a machine without these programs, but not in CI.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v: CI must have it", err)
			}
			t.Skip(err)
		}
	}
}

// A program is one that runs in the background until the test ends.
type program struct {
	cmd *exec.Cmd
	out *logBuffer
}

func (d *device) command(how launch, args ...string) *exec.Cmd {
	if how == underRun {
		args = append([]string{filepath.Join(bin, "smc_run"), "-d"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "ISMFS_MOUNT="+d.Point, "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// start starts a program. change may set its directory and so on.
func (d *device) start(how launch, args ...string) *program {
	d.t.Helper()
	p := &program{d.command(how, args...), new(logBuffer)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		p.kill()
		if d.t.Failed() {
			d.t.Logf("%v says:\n%s", args, p.out)
		}
	})
	return p
}

// kill ends the program and its children as kill -9 does.
func (p *program) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
}

// wantEnd waits until it has ended by itself, well.
func (p *program) wantEnd(t *testing.T) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v: %v", p.cmd.Args, err)
		}
	case <-time.After(patience):
		t.Errorf("%v does not end", p.cmd.Args)
		p.cmd.Process.Kill()
		<-ended
	}
}

// end ends it in order and waits.
func (p *program) end() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait()
}

// run runs a program to its end and returns what it prints; the test fails if it fails.
func (d *device) run(how launch, args ...string) string {
	d.t.Helper()
	out, err := d.try(how, args...)
	if err != nil {
		d.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// runPatience is how long a program may take. It is a limit for broken code: some are slow, with a sanitizer, and beside others.
const runPatience = 5 * time.Minute

func (d *device) try(how launch, args ...string) (string, error) {
	cmd := d.command(how, args...)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	stop := time.AfterFunc(runPatience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop.Stop()
	err := cmd.Run()
	if err != nil {
		return out.String() + errors.String(), err
	}
	return out.String(), nil
}

// Ports that programs are told to listen on are below those that the kernel gives to who asks for any, which in tests that go beside one
// another others do all the time.
const firstPort, endPort = 10000, 32000

var lastPort atomic.Uint32

func init() { lastPort.Store(rand.Uint32N(endPort - firstPort)) } // other packages' tests have ports, too

// freePort returns a port of loopback that nobody listens on, and that it has not returned before.
func freePort(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		port := strconv.Itoa(firstPort + int(lastPort.Add(1)%(endPort-firstPort)))
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal(err)
	return ""
}

// inBothCopyModesOf runs a test with dmb_copy 0 and 1, on two devices beside one another.
func inBothCopyModesOf(t *testing.T, f func(t *testing.T, d *device)) {
	for _, mode := range []string{"0", "1"} {
		t.Run("dmb_copy="+mode, func(t *testing.T) {
			t.Parallel()
			f(t, mountSMC(t, "--dmb-copy="+mode))
		})
	}
}

// listening waits until somebody listens on a port, as the kernel says: a connection would be counted.
func listening(t *testing.T, port string) {
	t.Helper()
	waitFor(t, "a listener on port "+port, func() error {
		out, err := exec.Command("ss", "-Hltn", "sport", "=", ":"+port).Output()
		if err == nil && len(bytes.TrimSpace(out)) == 0 {
			err = fmt.Errorf("there is none")
		}
		return err
	})
}

// tree returns the device as programs see it.
func (d *device) tree() *tree.Device {
	d.t.Helper()
	device, err := tree.Find(d.Point)
	if err != nil {
		d.t.Fatal(err)
	}
	return device
}

func (d *device) treeStats() tree.Stats {
	d.t.Helper()
	s, err := d.tree().Stats()
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

type smcCounts struct{ clients, servers, fallbacks, givenUp uint64 }

func (d *device) smcCounts() smcCounts {
	s := d.treeStats()
	c := smcCounts{clients: s.SMCD["SMC_CLNT_V2_SUCC_CNT"], servers: s.SMCD["SMC_SRV_V2_SUCC_CNT"]}
	for _, n := range s.Handshake.ClientFallback {
		c.fallbacks += n
	}
	for _, n := range s.Handshake.ServerFallback {
		c.fallbacks += n
	}
	c.fallbacks += s.Handshake.ClientErrors
	c.givenUp = s.Handshake.ServerErrors
	return c
}

// wantSMC fails the test unless f makes this many connections, -1 for at least one, in SMC-D mode at both ends, and no other.
func (d *device) wantSMC(n int, f func()) {
	d.t.Helper()
	d.wantSMCBut(0, n, f)
}

// wantSMCBut is wantSMC for clients that may give up so many connections more in the middle of their handshake: those are declined, at
// both ends.
func (d *device) wantSMCBut(givenUp, n int, f func()) {
	d.t.Helper()
	before := d.smcCounts()
	f()
	after := d.smcCounts()
	clients, servers := after.clients-before.clients, after.servers-before.servers
	if clients < servers || clients-servers > uint64(givenUp) || n >= 0 && clients != uint64(n) || clients == 0 && n != 0 {
		d.t.Errorf("%d connections by clients, %d by servers; want %d", clients, servers, n)
	}
	if n := after.fallbacks - before.fallbacks; n > 2*uint64(givenUp) {
		d.t.Errorf("%d fallbacks or failures: %+v", n, d.treeStats().Handshake)
	}
	if n := after.givenUp - before.givenUp; n > uint64(givenUp) {
		d.t.Errorf("%d handshakes have failed at the server: %+v", n, d.treeStats().Handshake)
	}
}

// wantPlain fails the test unless f makes no SMC connection, and moves nothing through DMBs.
func (d *device) wantPlain(f func()) {
	d.t.Helper()
	before := d.smcCounts()
	d.wantGrowth(0, f)
	if after := d.smcCounts(); after.clients != before.clients || after.servers != before.servers {
		d.t.Errorf("SMC connections came about: %+v, before %+v", after, before)
	}
}

// connsTo returns the lines of conns of the connections to a port, both ends.
func (d *device) connsTo(port string) (conns []tree.Conn) {
	d.t.Helper()
	all, err := d.tree().Conns()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, c := range all {
		if c.Mode != tree.ModeListen && (strconv.Itoa(int(c.Local.Port())) == port || strconv.Itoa(int(c.Peer.Port())) == port) {
			conns = append(conns, c)
		}
	}
	return conns
}

// wantNoneTo waits until no connection to a port is left, at either end.
func (d *device) wantNoneTo(port string) {
	d.t.Helper()
	waitFor(d.t, "the end of the connections", func() error {
		if left := d.connsTo(port); len(left) != 0 {
			return fmt.Errorf("%d lines, %s of %d the first: %s, %s", len(left), left[0].Role, left[0].PID, left[0].Mode, left[0].State)
		}
		return nil
	})
}
