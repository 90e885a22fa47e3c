// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// What proves that a program's bytes went through DMBs: its connections in conns and in smcd-dump, and its own count of bytes.

// wantBothEnds fails the test unless at least n connections to a port stand in conns and in what smcd-dump prints, in SMC-D mode at both
// ends, and none in another mode.
func (d *device) wantBothEnds(port string, n int) {
	d.t.Helper()
	waitFor(d.t, "connections in conns and smcd-dump", func() error {
		roles := make(map[string]int)
		for _, c := range d.connsTo(port) {
			if c.Mode != tree.ModeSMCD {
				return fmt.Errorf("%s from %v to %v", c.Mode, c.Local, c.Peer)
			}
			roles[c.Role]++
		}
		if roles["client"] < n || roles["client"] != roles["server"] {
			return fmt.Errorf("%v, want %d each", roles, n)
		}
		modes := d.dumpedTo(port)
		if modes["client SMCD"] < n || modes["server SMCD"] < n || len(modes) != 2 {
			return fmt.Errorf("smcd-dump shows %v, want %d each", modes, n)
		}
		return nil
	})
}

// dumpedTo counts the rows of `smcd-dump sockets` of a port by end and mode: "client SMCD", "server TCP 0x03010000".
func (d *device) dumpedTo(port string) map[string]int {
	d.t.Helper()
	modes := make(map[string]int)
	for row := range strings.Lines(d.dump("sockets")) {
		f := strings.Fields(row) // State UID Inode Local Peer Intf Mode
		switch {
		case len(f) < 7:
		case strings.HasSuffix(f[4], ":"+port):
			modes["client "+strings.Join(f[6:], " ")]++
		case strings.HasSuffix(f[3], ":"+port):
			modes["server "+strings.Join(f[6:], " ")]++
		}
	}
	return modes
}

// wantGrowthWithin fails the test unless xfer_bytes grows by at least what f returns, and at most by so much more.
func (d *device) wantGrowthWithin(more int64, f func() int64) {
	d.t.Helper()
	before := d.xferBytes()
	least := f()
	if grown := d.xferBytes() - before; grown < least || grown > least+more {
		d.t.Errorf("xfer_bytes grew by %d, want %d and at most %d more", grown, least, more)
	}
}

// wantMode fails the test unless f makes n connections (-1: some) of SMC-D if both sides are under smc_run, which move at least what it
// returns and at most so much more, and else moves all by TCP.
func (d *device) wantMode(server, client launch, n int, more int64, f func() int64) {
	d.t.Helper()
	if server == underRun && client == underRun {
		d.wantSMC(n, func() { d.wantGrowthWithin(more, f) })
	} else {
		d.wantPlain(func() { f() })
	}
}

// A meter asks a server, over a connection of its own that is not SMC, how many bytes it has read and written.
type meter struct {
	t        *testing.T
	conn     net.Conn
	ask, end string
	own      int64 // bytes of this connection, both ways
}

var countedBytes = regexp.MustCompile(`(?:total_net_input_bytes:|total_net_output_bytes:|STAT bytes_read |STAT bytes_written )(\d+)\r`)

func newMeter(t *testing.T, network, address, ask, end string) *meter {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &meter{t: t, conn: conn, ask: ask, end: end}
	m.count() // so that what the connection itself adds to the counters has been added
	return m
}

// redisMeter asks over the Unix socket that startRedis gives a server as its last argument: of TCP, conns has what is tested alone.
func redisMeter(t *testing.T, server *program) *meter {
	t.Helper()
	args := server.cmd.Args
	return newMeter(t, "unix", args[len(args)-1], "info stats\r\nping\r\n", "+PONG\r\n")
}

func memcachedMeter(t *testing.T, port string) *meter {
	t.Helper()
	return newMeter(t, "tcp", "127.0.0.1:"+port, "stats\r\n", "END\r\n")
}

// count is what the server has read and written on other connections.
func (m *meter) count() (n int64) {
	m.t.Helper()
	m.conn.SetDeadline(time.Now().Add(patience))
	if _, err := m.conn.Write([]byte(m.ask)); err != nil {
		m.t.Fatal(err)
	}
	m.own += int64(len(m.ask)) // the answer is written after it was counted
	n = -m.own
	var answer strings.Builder
	for b := make([]byte, 16<<10); !strings.HasSuffix(answer.String(), m.end); {
		got, err := m.conn.Read(b)
		if err != nil {
			m.t.Fatalf("%v after %q", err, answer.String())
		}
		answer.Write(b[:got])
	}
	m.own += int64(answer.Len())
	found := countedBytes.FindAllStringSubmatch(answer.String(), -1)
	if len(found) != 2 {
		m.t.Fatalf("it counts %q", found)
	}
	for _, f := range found {
		counted, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			m.t.Fatal(err)
		}
		n += counted
	}
	return n
}

// wantAll fails the test unless xfer_bytes grows by exactly what the server reads and writes while f runs, and that is at least so much.
// A thread of the server may count after the client has heard, so its count is waited for.
func (m *meter) wantAll(d *device, least int64, f func()) {
	m.t.Helper()
	xfer, counted := d.xferBytes(), m.count()
	f()
	grown := d.xferBytes() - xfer
	if grown < least {
		m.t.Errorf("xfer_bytes grew by %d, want %d at least", grown, least)
	}
	waitFor(m.t, "the server's count to be the device's", func() error {
		if moved := m.count() - counted; moved != grown {
			return fmt.Errorf("the server has read and written %d bytes, xfer_bytes grew by %d", moved, grown)
		}
		return nil
	})
}
