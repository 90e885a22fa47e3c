// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRunMixed: fifty connections between two processes whose threads wait by poll, ppoll, select, epoll_wait and in reads, several for the
// same connections. A byte for which nobody is woken stops the test.
func TestRunMixed(t *testing.T) {
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		d.wantSMC(50, func() {
			d.wantGrowthWithin(0, func() (bytes int64) {
				out := d.run(underRun, filepath.Join(bin, "smc-run-mixed"), "3000")
				if _, err := fmt.Sscanf(out, "bytes %d", &bytes); err != nil || bytes == 0 {
					t.Fatalf("it prints %q", out)
				}
				return bytes
			})
		})
		d.WantCount(0)
	})
}

// batchReader waits for a byte on each of fifty connections, again and again.
const batchReader = `
import select, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=50)
conns = {}
while len(conns) < 50:
    c, _ = listener.accept()
    c.recv(1)
    conns[c.fileno()] = c
poll, epoll = select.poll(), select.epoll()
for fd in conns:
    poll.register(fd, select.POLLIN)
    epoll.register(fd, select.EPOLLIN)
ways = {
    "poll": lambda: [fd for fd, _ in poll.poll()],
    "select": lambda: select.select(list(conns), [], [])[0],
    "epoll": lambda: [fd for fd, _ in epoll.poll()],
}
rounds = 0
while True:
    left = 50
    while left > 0:
        for fd in ways[sys.argv[1]]():
            if not conns[fd].recv(1):
                sys.exit()
            left -= 1
    rounds += 1
    print("round", rounds, flush=True)
`

// batchWriter writes a byte on each of them for each line that it reads.
const batchWriter = `
import socket, sys
conns = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(50)]
for c in conns:
    c.send(b"x")
for line in sys.stdin:
    for c in conns:
        c.send(b"x")
    print("sent", line.strip(), flush=True)
`

// TestRunBatch: a program that sleeps in poll, select or epoll_wait is woken once for all that comes to it meanwhile, by its doorbell page.
func TestRunBatch(t *testing.T) {
	need(t, "python3")
	d := mountSMC(t)
	for _, way := range []string{"poll", "select", "epoll"} {
		t.Run(way, func(t *testing.T) {
			port := freePort(t)
			reader := d.start(underRun, "python3", "-c", batchReader, way, port)
			listening(t, port)
			writer, said := d.command(underRun, "python3", "-c", batchWriter, port), new(logBuffer)
			orders, err := writer.StdinPipe()
			writer.Stdout, writer.Stderr = said, said
			if err == nil {
				err = writer.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer (&program{writer, said}).kill()
			for round := 1; round <= 3; round++ {
				page := stopAsleep(t, reader)
				rung := page.sequence
				fmt.Fprintln(orders, round)
				waitForText(t, said, fmt.Sprintf("sent %d\n", round))
				page.read(t)
				if page.sequence != rung+1 || page.wait != 0 || page.bits != 50 {
					t.Errorf("after 50 bytes: rung %d times, wait state %d, %d bits; want once, 0 and 50", page.sequence-rung, page.wait, page.bits)
				}
				syscall.Kill(reader.cmd.Process.Pid, syscall.SIGCONT)
				waitForText(t, reader.out, fmt.Sprintf("round %d\n", round))
			}
			orders.Close()
			writer.Wait()
			reader.wantEnd(t)
		})
	}
}

func waitForText(t *testing.T, out *logBuffer, text string) {
	t.Helper()
	waitFor(t, text, func() error {
		if !strings.Contains(out.String(), text) {
			return fmt.Errorf("it says\n%s", out)
		}
		return nil
	})
}

// A sleptPage is the doorbell page on which a stopped process sleeps, read from its memory.
type sleptPage struct {
	pid            int
	at             int64
	sequence, wait uint32
	bits           int
}

func (p *sleptPage) read(t *testing.T) (ok bool) {
	t.Helper()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	b := make([]byte, 4096)
	if _, err := io.ReadFull(io.NewSectionReader(memory, p.at, int64(len(b))), b); err != nil {
		return false
	}
	p.sequence, p.wait, p.bits = binary.NativeEndian.Uint32(b[24:]), binary.NativeEndian.Uint32(b[28:]), 0
	for _, c := range b[64:] {
		p.bits += bits.OnesCount8(c)
	}
	return b[0] == 0xDB
}

var sharedMapping = regexp.MustCompile(`(?m)^([0-9a-f]+)-([0-9a-f]+) rw-s `)

// stopAsleep stops a program while it sleeps on its page: of the pages that it has mapped, its own is the one that says so.
func stopAsleep(t *testing.T, p *program) (page *sleptPage) {
	t.Helper()
	pid := p.cmd.Process.Pid
	waitFor(t, "the program to sleep on its page", func() error {
		syscall.Kill(pid, syscall.SIGSTOP)
		waitFor(t, "the program to stop", func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !strings.Contains(string(stat), ") T ") {
				err = fmt.Errorf("stat is %s", stat)
			}
			return err
		})
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			return err
		}
		for _, m := range sharedMapping.FindAllStringSubmatch(string(maps), -1) {
			from, _ := strconv.ParseInt(m[1], 16, 64)
			to, _ := strconv.ParseInt(m[2], 16, 64)
			page = &sleptPage{pid: pid, at: from}
			if to-from == 4096 && page.read(t) && page.wait != 0 {
				return nil
			}
		}
		syscall.Kill(pid, syscall.SIGCONT)
		return fmt.Errorf("it does not say that it sleeps")
	})
	return page
}
