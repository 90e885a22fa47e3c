// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// forkingServer has its first client in common with its children, whose number it is told. Each of them closes it when it gets SIGUSR1.
const forkingServer = `
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
client = listener.accept()[0]
client.recv(1)
def close(*_):
    client.close()
    print("closed by", os.getpid(), flush=True)
signal.signal(signal.SIGUSR1, close)
for i in range(int(sys.argv[2])):
    if os.fork() == 0:
        while True:
            signal.pause()
client.send(b"!")
while True:
    later = listener.accept()[0]
    while later.recv(1):
        later.send(b"!")
    later.close()
`

// holders are the processes that have the connection: the parent, and its children.
type holders struct {
	t      *testing.T
	server *program
	pids   []int
}

func (h holders) signal(who int, n syscall.Signal) {
	h.t.Helper()
	if err := syscall.Kill(h.pids[who], n); err != nil {
		h.t.Fatal(err)
	}
}

// kill kills a child, which stays a zombie.
func (h holders) kill(who int) {
	h.t.Helper()
	h.signal(who, syscall.SIGKILL)
	waitFor(h.t, "its death", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pids[who]))
		if err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			err = fmt.Errorf("it is %s", stat)
		}
		return err
	})
}

// close has one of them close it. A signal that comes when Python has just looked for signals, and is not in accept or pause yet, is not seen until
// another one comes, over TCP as well (preload/test/signals.c is about those that come in a call).
func (h holders) close(who int) {
	h.t.Helper()
	line := fmt.Sprintf("closed by %d\n", h.pids[who])
	var sent time.Time
	waitFor(h.t, "its close", func() error {
		if time.Since(sent) > time.Second {
			h.signal(who, syscall.SIGUSR1)
			sent = time.Now()
		}
		if !strings.Contains(h.server.out.String(), line) {
			return fmt.Errorf("it says nothing")
		}
		return nil
	})
}

// TestRunHolders: of the processes that have a connection some are killed and some close it, each time the last one that has it last. The
// peer finds what it finds over TCP, the line in conns goes, and the DMBs are free for the next connection or given back.
func TestRunHolders(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	const parent, one, other = 0, 1, 2
	for _, c := range []struct {
		name     string
		children int
		unread   bool // the peer has written what nobody reads
		end      func(h holders)
		want     error
	}{
		{"child killed, parent closes", 1, false, func(h holders) { h.kill(one); h.close(parent) }, io.EOF},
		{"child killed, parent closes, unread bytes", 1, true, func(h holders) { h.kill(one); h.close(parent) }, syscall.ECONNRESET},
		{"parent closes, child killed", 1, false, func(h holders) { h.close(parent); h.kill(one) }, io.EOF},
		{"parent closes, child killed, unread bytes", 1, true, func(h holders) { h.close(parent); h.kill(one) }, syscall.ECONNRESET},
		{"parent closes, child closes", 1, false, func(h holders) { h.close(parent); h.close(one) }, io.EOF},
		{"one killed, parent closes, other closes", 2, false, func(h holders) { h.kill(one); h.close(parent); h.close(other) }, io.EOF},
		{"parent closes, other closes, one killed", 2, false, func(h holders) { h.close(parent); h.close(other); h.kill(one) }, io.EOF},
		{"parent closes, both killed", 2, false, func(h holders) { h.close(parent); h.kill(one); h.kill(other) }, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inBothCopyModesOf(t, func(t *testing.T, d *device) {
				for _, how := range []launch{asItIs, underRun} {
					d.endAmong(how, c.children, c.unread, c.end, c.want)
				}
			})
		})
	}
}

// endAmong has one client's connection end as end says.
func (d *device) endAmong(how launch, n int, unread bool, end func(h holders), want error) {
	t := d.t
	t.Helper()
	port, peer, over := freePort(t), startPeer(t, d.Point), plain
	server := d.start(how, "python3", "-c", forkingServer, port, strconv.Itoa(n))
	listening(t, port)
	if how == underRun {
		over = overSMC
	}
	dial := func() *peerConn {
		c := peer.MustDial(over, "tcp", "127.0.0.1:"+port)
		c.Write([]byte("?"))
		answer, err := c.Read(1)
		wantText(t, "Read", answer, err, "!")
		return c
	}
	conn := dial()
	pid := server.cmd.Process.Pid
	h := holders{t, server, append([]int{pid}, children(t, pid)...)}
	if len(h.pids) != n+1 {
		t.Fatalf("processes %v, want %d children", h.pids, n)
	}
	held := d.registered()
	if unread {
		conn.Write([]byte("more"))
	}
	end(h)
	_, err := conn.Read(1)
	wantError(t, "Read of the end, "+string(how), err, want)
	waitFor(t, "the server's line to go", func() error {
		for _, line := range d.connsTo(port) {
			if line.Role == "server" {
				return fmt.Errorf("%v", line)
			}
		}
		return nil
	})
	wantError(t, "Close", conn.Close(), nil)
	d.wantNoneTo(port)
	conn = dial()
	waitFor(t, "the first one's DMBs to be used again or given back", func() error {
		if now := d.registered(); now != held {
			return fmt.Errorf("there are %d, %d before", now, held)
		}
		return nil
	})
	wantError(t, "Close", conn.Close(), nil)
	server.kill()
	peer.CloseIdle()
	d.WantCount(0)
}

// registered counts the DMBs that have an owner: a Go peer can stay attached to one that it has no more.
func (d *device) registered() int {
	d.t.Helper()
	dmbs, err := os.ReadDir(d.Path("dmbs"))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(dmbs)
}
