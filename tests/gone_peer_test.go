// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// holds returns how many handles of DMBs with this token a process has: the names stand behind /proc/PID/fd, also of what is gone.
func holds(t *testing.T, pid int, token string) (n int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && strings.Contains(name, "/dmbs/"+token) {
			n++
		}
	}
	return n
}

// TestDeadPeerIsLetGo: of a process that is killed, libsmc has one connection that its program does not close, and the DMB of one that was
// over. It lets go of the latter at once, and of all when the program has closed.
func TestDeadPeerIsLetGo(t *testing.T) {
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		client, server := startPeer(t, d.Point), startPeer(t, d.Point)
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		a, b := connectTo(t, client, overSMC, l)
		left, kept := connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		wantSMCD(d, left, kept)
		exchange(a, b, 1000)
		token, pid := a.Info().Token.String(), server.cmd.Process.Pid
		wantError(t, "Close", a.Close(), nil)
		if _, err := b.ReadAll(); err != nil {
			t.Errorf("the server reads %v", err)
		}
		wantError(t, "Close", b.Close(), nil)
		waitFor(t, "both to have ended the first connection", func() error {
			if n := strings.Count(d.Read("conns"), " SMCD "); n != 2 {
				return fmt.Errorf("%d ends in SMC-D mode", n)
			}
			return nil
		})
		if n := holds(t, pid, token); n != 1 {
			t.Errorf("the server has %d handles of the client's DMB, want the one that is kept for the next connection", n)
		}
		client.Kill()
		waitFor(t, "the server to let go of the dead client's DMB", func() error {
			if n := holds(t, pid, token); n != 0 {
				return fmt.Errorf("it has %d handles", n)
			}
			return nil
		})
		if _, err := kept.Read(1); err == nil {
			t.Error("a dead client has written")
		}
		wantError(t, "Close", kept.Close(), nil)
		wantError(t, "Close", l.Close(), nil)
		d.WantCount(0)
	})
}

// lingers accepts one client after the other, reads to its end, and closes.
const lingers = `
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c = listener.accept()[0]
    while c.recv(65536):
        pass
    c.close()
`

// leaves connects, writes, shuts down for writing and waits for the end, which it tells; then it does nothing.
const leaves = `
import socket, sys, time
c = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
c.sendall(b"last")
c.shutdown(socket.SHUT_WR)
print("end" if c.recv(1) == b"" else "bytes", flush=True)
time.sleep(1000)
`

// TestRunHalfClosedAndKilled: a client that has shut down for writing, and to which the server has closed then, is killed before it closes.
// The server keeps nothing of it while it waits for the next client, far less long than for an end that may still come.
func TestRunHalfClosedAndKilled(t *testing.T) {
	need(t, "python3")
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		port := freePort(t)
		server := d.start(underRun, "python3", "-c", lingers, port)
		listening(t, port)
		for name, kill := range map[string]func() func(){
			"smc_run": func() func() {
				client := d.start(underRun, "python3", "-c", leaves, port)
				waitFor(t, "the client to read the end", func() error {
					if !strings.Contains(client.out.String(), "end\n") {
						return errors.New(client.out.String())
					}
					return nil
				})
				return client.kill
			},
			"libsmc": func() func() {
				client := startPeer(t, d.Point)
				c := client.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
				if _, err := c.Write([]byte("last")); err != nil {
					t.Fatal(err)
				}
				wantError(t, "CloseWrite", c.CloseWrite(), nil)
				if _, err := c.Read(1); !errors.Is(err, io.EOF) {
					t.Errorf("the client reads %v", err)
				}
				return client.Kill
			},
		} {
			t.Run(name, func(t *testing.T) {
				d.wantSMC(1, func() { kill()() })
				d.WantCount(0)
				d.wantNoneTo(port)
			})
		}
		server.kill()
	})
}
