// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// TestRunApart: what cannot go through shared buffers is TCP if nothing has been agreed on yet, declined at both ends, and else
// refused (preload/test/apart.c).
func TestRunApart(t *testing.T) {
	d := mountSMC(t)
	before := d.treeStats().Handshake
	cmd := d.command(underRun, filepath.Join(bin, "smc-run-test"), "apart")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after := d.treeStats().Handshake
	if c, s := after.ClientFallback["PEERDECL"]-before.ClientFallback["PEERDECL"],
		after.ServerFallback["OPTUNSUPP"]-before.ServerFallback["OPTUNSUPP"]; c != 2 || s != 2 {
		t.Errorf("declined: %d clients, %d servers; want 2 each", c, s)
	}
	for _, want := range []string{"io_uring is refused", "is in SMC-D mode and cannot be passed"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("smc_run -d does not say %q:\n%s", want, out)
		}
	}
	d.WantCount(0)
}

// TestRunHandOver: a listener that one program under smc_run passes to another one over a Unix socket goes on in SMC-D mode there.
func TestRunHandOver(t *testing.T) {
	d := mountSMC(t)
	d.wantGrowth(10, func() {
		d.wantSMC(1, func() { d.run(underRun, filepath.Join(bin, "smc-run-test"), "hand-over") })
	})
	d.WantCount(0)
}

// TestRunMusl: programs of another C library. Dynamic ones are as those of glibc are, static ones stay TCP.
func TestRunMusl(t *testing.T) {
	need(t, "musl-gcc")
	d := mountSMC(t)
	build := func(source string, args ...string) string {
		t.Helper()
		program := filepath.Join(tempDir(t), "program")
		args = append([]string{"-O1", "-pthread", "-o", program, filepath.Join("../preload", source)}, args...)
		if out, err := exec.Command("musl-gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return program
	}
	pingpong := []string{freePort(t), "1000", "100"}
	d.wantGrowth(200000, func() {
		d.wantSMC(1, func() { d.run(underRun, append([]string{build("bench/pingpong.c")}, pingpong...)...) })
	})
	static := build("bench/pingpong.c", "-static")
	d.wantPlain(func() {
		out, err := d.command(underRun, append([]string{static}, pingpong...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "smc_run: "+static+" is static: its connections stay TCP. ") {
			t.Errorf("smc_run -d with a static program says\n%s%v", out, err)
		}
	})

	d.wantSMC(4, func() { d.run(underRun, build("test/cancel.c")) })

	stress, port := build("test/stress.c"), freePort(t)
	server := d.start(underRun, stress, "serve", port)
	listening(t, port)
	d.wantSMC(-1, func() { d.run(underRun, stress, "talk", port, "1000", "4") })
	server.kill()
	d.WantCount(0)
}

// TestRunNewDaemon: connections outlive the daemon. Who connects meanwhile is on TCP, and on the next daemon's device as soon as there is
// one, with the same listener.
func TestRunNewDaemon(t *testing.T) {
	d := mountSMC(t)
	port, server := d.startRedis(underRun)
	subscriber := d.start(underRun, "redis-cli", "-p", port, "subscribe", "news")
	d.wantBothEnds(port, 1)
	heard := func(what string) {
		t.Helper()
		waitFor(t, "the subscriber", func() error {
			if !strings.Contains(subscriber.out.String(), what) {
				return fmt.Errorf("it says %q", subscriber.out)
			}
			return nil
		})
	}
	heard("subscribe")
	publish := func(what string) {
		t.Helper()
		if out := d.run(underRun, "redis-cli", "-p", port, "publish", "news", what); out != "1\n" {
			t.Errorf("publish says %q", out)
		}
		heard(what)
	}
	d.wantSMC(1, func() { publish("first") })
	d.Kill()
	publish("second")
	d = mountDeviceOn(t, d.Point, "--replace")
	waitFor(t, "a connection over the new device", func() error {
		d.run(underRun, "redis-cli", "-p", port, "ping")
		if n := d.smcCounts(); n.clients == 0 || n.servers == 0 {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	d.wantSMC(1, func() { publish("third") })
	client := d.start(underRun, "redis-cli", "-p", port, "subscribe", "more")
	waitFor(t, "the client in conns", func() error {
		for _, c := range d.connsTo(port) {
			if c.Role == "server" && c.Mode == tree.ModeSMCD {
				return nil
			}
		}
		return fmt.Errorf("it is not there")
	})
	client.kill()
	server.end()
	d.WantCount(0)
}

// TestRunIdleOverDaemons: the same under smc_run.
func TestRunIdleOverDaemons(t *testing.T) {
	need(t, "python3")
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			d := mountSMC(t)
			port, _ := d.startRedis(underRun)
			client := d.command(underRun, "python3", "-c", `
import socket, sys
for line in sys.stdin:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"PING\r\n")
        print(s.recv(7).decode().strip(), flush=True)`, port)
			in, _ := client.StdinPipe()
			out := new(logBuffer)
			client.Stdout = out
			wantError(t, "the client's start", client.Start(), nil)
			for i := range 3 {
				d.wantSMC(1, func() {
					fmt.Fprintln(in, "connect")
					waitFor(t, "the answer", func() error {
						if strings.Count(out.String(), "+PONG\n") <= i {
							return fmt.Errorf("the client has printed %q", out)
						}
						return nil
					})
				})
				d.wantNoneTo(port)
				d = change(t, d)
				time.Sleep(moment)
			}
			in.Close()
			wantError(t, "the client's end", client.Wait(), nil)
		})
	}
}
