// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// TestRunEarly: programs that write, shut down or close before the other side has come to answer find what TCP gives: nobody waits for
// anybody for ever, and ends are ends (preload/test/early.c).
func TestRunEarly(t *testing.T) {
	t.Parallel()
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		program := filepath.Join(bin, "smc-run-test")
		d.wantPlain(func() { d.run(asItIs, program, "early") })
		d.run(underRun, program, "early")
		d.WantCount(0)
		if conns := d.Read("conns"); conns != "" {
			t.Errorf("conns still has\n%s", conns)
		}
	})
}

// TestRunLateClient: a server waits for a client that has other things to do first, and the connection is SMC-D.
func TestRunLateClient(t *testing.T) {
	t.Parallel()
	d := mountSMC(t)
	d.wantSMC(1, func() { d.run(underRun, filepath.Join(bin, "smc-run-test"), "late") })
	d.WantCount(0)
}

// TestRunBusyServer: a server takes more than a second to come to all its clients, one after the other; none of them gives SMC up meanwhile.
func TestRunBusyServer(t *testing.T) {
	need(t, "python3")
	d := mountSMC(t)
	const clients = 12
	port := freePort(t)
	server := d.start(underRun, "python3", "-c", `
import socket, sys, time
l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for i in range(int(sys.argv[2])):
    time.sleep(0.1)
    c, _ = l.accept()
    c.sendall(c.recv(1))
    c.close()
`, port, fmt.Sprint(clients))
	listening(t, port)
	d.wantSMC(clients, func() {
		d.run(underRun, "python3", "-c", `
import socket, sys, threading
def talk():
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall(b"x")
    if s.recv(1) != b"x" or s.recv(1) != b"":
        print("lost")
all = [threading.Thread(target=talk) for i in range(int(sys.argv[2]))]
for t in all: t.start()
for t in all: t.join()
`, port, fmt.Sprint(clients))
	})
	server.wantEnd(t)
	d.WantCount(0)
}

// TestRunGivesUp: a client under smc_run has declined behind its Proposal when a Go server comes, which hears nothing of that; also where
// the server declines, too.
func TestRunGivesUp(t *testing.T) {
	need(t, "socat")
	for _, declines := range []bool{false, true} {
		t.Run(fmt.Sprintf("server declines: %v", declines), func(t *testing.T) {
			d := mountSMC(t)
			if declines {
				for _, name := range strings.Fields(d.Read("ueid")) {
					wantError(t, "removing "+name, d.Write("ueid", "-"+name), nil)
				}
			}
			l := startPeer(t, d.Point).Listen(overSMC, "tcp", "127.0.0.1:0")
			client := d.start(underRun, "sh", "-c", "echo hello | socat -t 30 - TCP:"+l.Address)
			waitFor(t, "the client to give up", func() error {
				if !strings.Contains(client.out.String(), "TCP: TIMEOUT_CL\n") {
					return fmt.Errorf("it says %q", client.out)
				}
				return nil
			})
			l.Echo()
			client.wantEnd(t)
			if out := client.out.String(); !strings.HasSuffix(out, "\nhello\n") {
				t.Errorf("the client says %q", out)
			}
			d.WantCount(0)
		})
	}
}

// TestRunClosedFirst: whoever closes before the handshake's first message is there ends the connection, and resets nothing.
func TestRunClosedFirst(t *testing.T) {
	need(t, "python3")
	d := mountSMC(t)
	a := startAttacker(t, d)
	t.Run("server", func(t *testing.T) {
		port := freePort(t)
		server := d.start(underRun, "python3", "-c", `
import socket, sys
l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
l.accept()[0].close()
`, port)
		listening(t, port)
		c := a.Attack(&peerListener{Address: "127.0.0.1:" + port})
		server.wantEnd(t)
		for range 2 {
			if b, err := c.ReadFull(1); !errors.Is(err, io.EOF) {
				t.Fatalf("after the server's end the client reads %q, %v", b, err)
			}
			p := a.Proposal()
			c.say(encoded(&p))
		}
	})
	t.Run("server, seen by a client", func(t *testing.T) {
		l := a.Listen(marked, "tcp", "127.0.0.1:0")
		_, port, _ := net.SplitHostPort(l.Address)
		client := d.start(underRun, "python3", "-c", `
import socket, sys
print("reads", socket.create_connection(("127.0.0.1", int(sys.argv[1]))).recv(1))
`, port)
		c := a.assault(l.MustAccept())
		if _, err := c.hear(); err != nil {
			t.Fatalf("the Proposal: %v", err)
		}
		wantError(t, "Close", c.Close(), nil)
		client.wantEnd(t)
		if out := client.out.String(); !strings.HasSuffix(out, "reads b''\n") {
			t.Errorf("the client says %q", out)
		}
	})
	d.WantCount(0)
}

// TestRunCrossing: a server under smc_run that has declined takes off the Decline of a client that gave up at the same time, and nothing
// else: what only begins like one is the program's.
func TestRunCrossing(t *testing.T) {
	need(t, "socat")
	d := mountSMC(t)
	a := startAttacker(t, d)
	a.local.UEIDs = otherEIDs(1)
	crossing := smc.NewDecline(smc.V2, smc.DeclTimeoutCL)
	b := crossing.AppendTo(nil)
	for name, row := range map[string]struct{ says, wants string }{
		"crossing":             {string(b) + "hello", "hello"},
		"none":                 {"hello", "hello"},
		"the beginning of one": {string(b[:smc.HeaderLen]), string(b[:smc.HeaderLen])},
		"a byte of one":        {string(b[:1]), string(b[:1])},
		"two":                  {string(b) + string(b), string(b)},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			server := d.start(underRun, "socat", "TCP-LISTEN:"+port+",bind=127.0.0.1", "PIPE")
			listening(t, port)
			c := a.Attack(&peerListener{Address: "127.0.0.1:" + port})
			p := a.Proposal()
			c.say(encoded(&p))
			if v, _ := c.judged(); v != declines(smc.DeclNoSMCDDev) {
				t.Fatalf("the server answers %v", v)
			}
			c.say([]byte(row.says))
			if got, err := c.ReadFull(len(row.wants)); err != nil || string(got) != row.wants {
				t.Errorf("%q comes back as %q, %v", row.says, got, err)
			}
			wantError(t, "Close", c.Close(), nil)
			server.wantEnd(t)
		})
	}
}
