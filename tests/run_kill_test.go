// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRunKill: either side is killed again and again in the middle of a load; nothing of it stays.
func TestRunKill(t *testing.T) {
	need(t, "redis-server", "redis-benchmark", "python3")
	d := mountSMC(t)
	for round := range 6 {
		port, server := d.startRedis(underRun)
		pause := time.Duration(round*17) * time.Millisecond // then it is in the middle of something, whatever it is
		if round%2 == 0 {
			client := d.start(underRun, "redis-benchmark", "-p", port, "-q", "-t", "set,get", "-n", "10000000", "-c", "50", "-d", "4096")
			d.wantBothEnds(port, 50)
			time.Sleep(pause)
			client.kill()
			d.wantNoneTo(port)
			d.wantSMC(1, func() { d.run(underRun, "redis-cli", "-p", port, "ping") })
			server.kill()
		} else {
			client := d.start(underRun, "python3", "-c", redisClient, port)
			d.wantBothEnds(port, 50)
			time.Sleep(pause)
			server.kill()
			client.wantEnd(t)
		}
		d.WantCount(0)
	}
}

// children returns the processes that a process has forked and that live.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, child)
	}
	return pids
}

// killOneOf kills a random child, which is to be one of n.
func killOneOf(t *testing.T, parent *program, n int) {
	t.Helper()
	pids := children(t, parent.cmd.Process.Pid)
	if len(pids) != n {
		t.Fatalf("children %v, want %d", pids, n)
	}
	if err := syscall.Kill(pids[rand.IntN(n)], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestRunKillWorker: one of nginx's workers is killed under load. The others go on, the next one serves those who come again, and nothing
// of the dead one stays.
func TestRunKillWorker(t *testing.T) {
	d := mountSMC(t)
	dir := tempDir(t)
	_, contents := bigFile(t, dir, 5<<20)
	port, server := d.startNginx(underRun, dir)
	end := d.wrk(underRun, port, "48")
	d.wantBothEnds(port, 48)
	killOneOf(t, server, 4)
	waitFor(t, "another worker", func() error {
		if pids := children(t, server.cmd.Process.Pid); len(pids) != 4 {
			return fmt.Errorf("there are %v", pids)
		}
		return nil
	})
	d.wantBothEnds(port, 48)
	if out, err := end(); err != nil {
		t.Errorf("wrk: %v\n%s", err, out)
	}
	d.wantNoneTo(port)
	for range 8 { // of any worker
		d.wantCurl(underRun, underRun, "http://127.0.0.1:"+port+"/big", contents)
	}
	server.end()
	d.WantCount(0)
}

// TestRunGracefulEnd: nginx is told to end under load when it has answered, and does.
func TestRunGracefulEnd(t *testing.T) {
	d := mountSMC(t)
	port, server := d.startNginx(underRun, tempDir(t))
	end := d.wrk(underRun, port, "48")
	d.wantBothEnds(port, 48)
	if err := server.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	server.wantEnd(t)
	if out, err := end(); err != nil {
		t.Errorf("wrk: %v\n%s", err, out)
	}
	d.wantNoneTo(port)
	d.WantCount(0)
}

// TestRunKillChild: of a server's threads and children, a random child is killed while all echo. That is the end of its connection, and of
// no other; the others end when they are told, though the dead one had some of them by fork.
func TestRunKillChild(t *testing.T) {
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		port := freePort(t)
		server := d.start(underRun, filepath.Join(bin, "smc-run-stress"), "serve", port)
		listening(t, port)
		peer := startPeer(t, d.Point)
		const n = 8 // every other one a child's
		conns := make(map[int]*peerConn)
		d.wantSMC(n+1, func() {
			for i := range n {
				conns[i] = peer.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
				echoed(conns[i], 1000)
			}
			d.wantBothEnds(port, n)
			d.killOneMeanwhile(server, conns)
			conns[n] = peer.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
			for _, c := range conns {
				echoed(c, 1000)
			}
		})
		for _, c := range conns {
			wantError(t, "CloseWrite", c.CloseWrite(), nil)
		}
		for _, c := range conns {
			_, err := c.Read(1)
			wantError(t, "Read of the end", err, io.EOF)
			wantError(t, "Close", c.Close(), nil)
		}
		d.wantNoneTo(port)
		server.kill()
		peer.CloseIdle()
		d.WantCount(0)
	})
}

// killOneMeanwhile kills one child in the middle of echoes, and takes out the connection that has ended with it.
func (d *device) killOneMeanwhile(server *program, conns map[int]*peerConn) {
	d.t.Helper()
	before, waits := d.xferBytes(), make(map[int]func() (int, error))
	for i, c := range conns {
		waits[i] = later(func() (int, error) { return 0, tryEcho(c, 16<<20) })
	}
	waitFor(d.t, "the middle of it", func() error {
		if moved := d.xferBytes() - before; moved < 8<<20 {
			return fmt.Errorf("%d bytes", moved)
		}
		return nil
	})
	killOneOf(d.t, server, len(conns)/2)
	ended := 0
	for i, wait := range waits {
		if _, err := wait(); err != nil {
			ended++
			wantError(d.t, "Close", conns[i].Close(), nil)
			delete(conns, i)
		}
	}
	if ended != 1 {
		d.t.Fatalf("%d connections have ended with the child", ended)
	}
}

// redisClient has 50 connections that ask and are answered without a pause, and ends when all have ended. (redis-benchmark
// itself does not end where a write is the first to fail: it goes on for ever with a connection that it knows to be broken.)
const redisClient = `
import selectors, socket, sys
ask = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4096\r\n" + 4096 * b"x" + b"\r\n"
poll = selectors.DefaultSelector()
for i in range(50):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.setblocking(False)
    poll.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, [ask])

def step(s, left, ready):
    if ready & selectors.EVENT_READ:
        answer = s.recv(4096)
        if not answer:
            raise ConnectionResetError
        left[0] += ask * answer.count(b"+OK")
    elif left[0]:
        left[0] = left[0][s.send(left[0]):]
    poll.modify(s, selectors.EVENT_READ | (selectors.EVENT_WRITE if left[0] else 0), left)

while poll.get_map():
    for key, ready in poll.select():
        try:
            step(key.fileobj, key.data, ready)
        except (ConnectionResetError, BrokenPipeError):
            poll.unregister(key.fileobj)
            key.fileobj.close()
`
