// SPDX-License-Identifier: Apache-2.0

// Package examples tests the examples as a reader would run them: as programs, on a mounted device and without one.
package examples

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// examples are what the clients are told, besides where the server is, and what they must say.
var examples = []struct {
	name    string
	server  string // the flag that takes the server's address, and what stands before it
	want    []string
	conns   int // connections of the client
	payload int // bytes that cross in both directions at the least
}{
	{"http", "-url=http://", []string{"GET http://ADDRESS/file0: 10485760 bytes", "GET http://ADDRESS/file2: 10485760 bytes"}, 1, 60 << 20},
	{"grpc", "-server=", []string{"Say: hello", "Talk: 8 streams, 4 messages of 1048576 bytes each came back"}, 1, 64 << 20},
	// go-redis takes another connection for pipelines.
	{"redis", "-server=", []string{"PING: PONG", "pipeline: 1000 answers", "GET: 10485760 bytes, as they were set"}, 2, 20 << 20},
}

// TestSMC runs every example on a device, in both copy modes: both ends must be in SMC-D mode, connections used again
// as over TCP, and xfer_bytes must have grown by exactly what the client has sent and got.
func TestSMC(t *testing.T) {
	point := mountDevice(t)
	for _, copied := range []string{"0", "1"} {
		knob := filepath.Join(point, "devices", "loopback-ism", "dmb_copy")
		if err := os.WriteFile(knob, []byte(copied), 0); err != nil {
			t.Fatal(err)
		}
		for _, e := range examples {
			t.Run(e.name+"/copy"+copied, func(t *testing.T) {
				before := number(t, read(t, point, "xfer_bytes"))
				server := start(t, point, e.name+"-server", "-listen=127.0.0.1:0")
				address := server.expect("listening on ")
				client := start(t, point, e.name+"-client", e.server+address, "-require-smc", "-hold=1h")
				client.expect("holding")
				for _, line := range e.want {
					client.expect(strings.ReplaceAll(line, "ADDRESS", address))
				}
				wantBothEnds(t, point, address, server, client, e.conns)
				grown := settled(t, point) - before
				client.signal(syscall.SIGTERM)
				client.wait(0)
				if moved := wantSMC(t, client, e.conns); moved != grown || moved < e.payload {
					t.Errorf("the connections have moved %d bytes; xfer_bytes has grown by %d, the payload alone is %d", moved, grown, e.payload)
				}
				server.signal(syscall.SIGTERM)
				server.wait(0)
				waitFor(t, "dmbs_cnt to be 0", func() error {
					if have := read(t, point, "dmbs_cnt"); have != "0" {
						return fmt.Errorf("it is %s", have)
					}
					return nil
				})
			})
		}
	}
}

// settled returns xfer_bytes once it stands still: HTTP/2 has pings of its own to exchange.
func settled(t *testing.T, point string) (now int) {
	t.Helper()
	waitFor(t, "xfer_bytes to stand still", func() error {
		before := number(t, read(t, point, "xfer_bytes"))
		time.Sleep(100 * time.Millisecond)
		if now = number(t, read(t, point, "xfer_bytes")); now != before {
			return fmt.Errorf("it goes from %d to %d", before, now)
		}
		return nil
	})
	return now
}

var smcLine = regexp.MustCompile(`(?m)^\S+ to \S+: SMC-D, (\d+) bytes read, (\d+) written$`)

// wantSMC wants a client to have had so many connections, in SMC-D mode, and returns how many bytes went over them until it
// was told to end.
func wantSMC(t *testing.T, client *process, conns int) (moved int) {
	t.Helper()
	_, end, _ := strings.Cut(client.String(), "\nholding")
	found := smcLine.FindAllStringSubmatch(end, -1)
	if len(found) != conns {
		t.Errorf("the client has had %d connections in SMC-D mode; want %d", len(found), conns)
	}
	for _, f := range found {
		moved += number(t, f[1]) + number(t, f[2])
	}
	return moved
}

// wantBothEnds wants conns to list the connections at both ends in SMC-D mode, and linkgroups a group for each process.
func wantBothEnds(t *testing.T, point, address string, server, client *process, conns int) {
	t.Helper()
	const pid, local, peer, mode, role = 2, 4, 5, 6, 17
	ends := make(map[string]int)
	list := read(t, point, "conns")
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) <= role {
			t.Fatalf("conns has the line %q", line)
		}
		if f[mode] == "SMCD" && (f[role] == "client" && f[peer] == address || f[role] == "server" && f[local] == address) {
			ends[f[role]+f[pid]]++
		}
	}
	for role, p := range map[string]*process{"server": server, "client": client} {
		if have := ends[role+strconv.Itoa(p.cmd.Process.Pid)]; have != conns {
			t.Errorf("conns has %d connections in SMC-D mode of the %s, process %d; want %d:\n%s", have, role, p.cmd.Process.Pid, conns, list)
		}
	}
	groups := read(t, point, "linkgroups")
	if len(strings.Split(groups, "\n")) != 2 {
		t.Errorf("linkgroups: want a line for each end:\n%s", groups)
	}
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTCP runs every example with SMC switched off at one end, and at both: it works as well, says what it is, and
// -require-smc makes that an error.
func TestTCP(t *testing.T) {
	point := mountDevice(t)
	for _, ends := range []struct{ name, server, client string }{
		{"both", "off", "off"}, {"server", "off", point}, {"client", point, "off"},
	} {
		for _, e := range examples {
			t.Run(e.name+"/"+ends.name, func(t *testing.T) {
				before := read(t, point, "xfer_bytes")
				server := start(t, ends.server, e.name+"-server", "-listen=127.0.0.1:0")
				address := server.expect("listening on ")
				client := start(t, ends.client, e.name+"-client", e.server+address)
				client.wait(0)
				for _, line := range e.want {
					client.expect(strings.ReplaceAll(line, "ADDRESS", address))
				}
				if tcp := strings.Count(client.String(), ": TCP, since "); tcp != e.conns || smcLine.MatchString(client.String()) {
					t.Errorf("the client has had %d connections on TCP; want %d, and none in SMC-D mode", tcp, e.conns)
				}
				strict := start(t, ends.client, e.name+"-client", e.server+address, "-require-smc")
				strict.wait(1)
				server.signal(syscall.SIGTERM)
				server.wait(0)
				if after := read(t, point, "xfer_bytes"); after != before {
					t.Errorf("xfer_bytes has gone from %s to %s", before, after)
				}
			})
		}
	}
}
