// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// bigFile makes a file of random bytes.
func bigFile(t *testing.T, dir string, size int) (path string, contents []byte) {
	t.Helper()
	contents = make([]byte, size)
	rand.Read(contents)
	path = filepath.Join(dir, "big")
	if err := os.WriteFile(path, contents, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, contents
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	waitFor(t, "the bytes of "+path, func() error {
		have, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(have, want) {
			err = fmt.Errorf("%d bytes, not the %d that they should be", len(have), len(want))
		}
		return err
	})
}

// socat pipes a file up from the client to the server, or down.
func (d *device) socat(server, client launch, up bool, path string, contents []byte) {
	d.t.Helper()
	got, port := filepath.Join(tempDir(d.t), "got"), freePort(d.t)
	read, write, listen, connect := "FILE:"+path, "CREATE:"+got, "TCP-LISTEN:"+port+",bind=127.0.0.1", "TCP:127.0.0.1:"+port
	serve, ask := []string{"socat", "-u", listen, write}, []string{"socat", "-u", read, connect}
	if !up {
		serve, ask = []string{"socat", "-u", read, listen}, []string{"socat", "-u", connect, write}
	}
	p := d.start(server, serve...)
	listening(d.t, port)
	d.wantMode(server, client, 1, 0, func() int64 {
		d.run(client, ask...)
		p.wantEnd(d.t)
		return int64(len(contents))
	})
	wantFile(d.t, got, contents)
}

// TestRunSocat pipes a file each way; the one side is the client, the other the server.
func TestRunSocat(t *testing.T) {
	need(t, "socat")
	d := mountSMC(t)
	path, contents := bigFile(t, tempDir(t), 50<<20)
	for _, up := range []bool{true, false} {
		d.socat(underRun, underRun, up, path, contents)
	}
	d.WantCount(0)
}

// TestRunIperf3: both directions, one stream and four; and one side plain.
func TestRunIperf3(t *testing.T) {
	need(t, "iperf3")
	d := mountSMC(t)
	port := d.startIperf(underRun)
	for _, row := range []struct {
		conns int // with the control connection
		args  []string
	}{{2, []string{"-n", "500M"}}, {2, []string{"-R", "-n", "500M"}}, {5, []string{"-P", "4", "-n", "500M"}}} {
		d.wantSMC(row.conns, func() {
			d.wantGrowthWithin(iperfControl, func() int64 { return d.iperf(underRun, port, row.args...) })
		})
	}
	d.wantPlain(func() { d.iperf(asItIs, port, "-n", "50M") })
}

func (d *device) startIperf(how launch) (port string) {
	d.t.Helper()
	port = freePort(d.t)
	d.start(how, "iperf3", "-s", "-B", "127.0.0.1", "-p", port)
	listening(d.t, port)
	return port
}

// iperfControl is room for what iperf3 says on its control connection and does not count: parameters and results, as JSON.
const iperfControl = 20000

// iperf returns how many bytes it has sent in its streams.
func (d *device) iperf(how launch, port string, args ...string) int64 {
	d.t.Helper()
	out := d.run(how, append([]string{"iperf3", "-J", "-c", "127.0.0.1", "-p", port}, args...)...)
	var result struct {
		End struct {
			Sent struct{ Bytes int64 } `json:"sum_sent"`
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Sent.Bytes == 0 {
		d.t.Fatalf("iperf3: %v\n%s", err, out)
	}
	return result.End.Sent.Bytes
}

// sockperfLoads are ping-pong and throughput. As fast as it goes, ping-pong is more than sockperf has room for in a second, now and then.
var sockperfLoads = []sockperfLoad{
	{14, regexp.MustCompile(`Total Run.*SentMessages=(\d+); ReceivedMessages=(\d+)`), []string{"pp", "--mps=50000"}},
	{64000, regexp.MustCompile(`Total of (\d+) messages sent`), []string{"tp"}},
}

type sockperfLoad struct {
	size   int64
	counts *regexp.Regexp
	args   []string
}

// uncounted is room for what sockperf does not count: a few messages to warm up, and one that was cut short by the end.
func (l *sockperfLoad) uncounted() int64 { return 10 * l.size }

func (d *device) startSockperf(how launch) (port string) {
	d.t.Helper()
	port = freePort(d.t)
	d.start(how, "sockperf", "server", "--tcp", "-i", "127.0.0.1", "-p", port)
	listening(d.t, port)
	return port
}

// sockperf returns how many bytes it has counted.
func (d *device) sockperf(how launch, port string, load *sockperfLoad) (moved int64) {
	d.t.Helper()
	args := []string{"sockperf", load.args[0], "--tcp", "-i", "127.0.0.1", "-p", port, "-t", "1", fmt.Sprint("--msg-size=", load.size)}
	out := d.run(how, append(args, load.args[1:]...)...)
	found := load.counts.FindStringSubmatch(out)
	if found == nil {
		d.t.Fatalf("sockperf prints\n%s", out)
	}
	for _, text := range found[1:] {
		n, _ := strconv.ParseInt(text, 10, 64)
		moved += n * load.size
	}
	return moved
}

// TestRunSockperf: one server for clients under smc_run and plain ones.
func TestRunSockperf(t *testing.T) {
	t.Parallel()
	need(t, "sockperf")
	d := mountSMC(t)
	port := d.startSockperf(underRun)
	for _, load := range sockperfLoads {
		d.wantSMC(1, func() {
			d.wantGrowthWithin(load.uncounted(), func() int64 { return d.sockperf(underRun, port, &load) })
		})
		d.wantPlain(func() { d.sockperf(asItIs, port, &load) })
	}
}

// memcachedClient stores and reads values of many sizes over eight connections, and compares them.
const memcachedClient = `
import socket, sys, threading, os
failed = []
def work(i):
    try:
        c = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
        f = c.makefile('rb')
        for k in range(200):
            v = os.urandom(1 + (k * 997) % 90000)
            c.sendall(b'set k%d_%d 0 0 %d\r\n' % (i, k, len(v)) + v + b'\r\n')
            assert f.readline() == b'STORED\r\n'
            c.sendall(b'get k%d_%d\r\n' % (i, k))
            f.readline()
            assert f.read(len(v)) == v and f.readline() == b'\r\n' and f.readline() == b'END\r\n'
    except BaseException as e:
        failed.append(e)
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
for t in threads: t.start()
for t in threads: t.join()
sys.exit(repr(failed) if failed else 0)
`

func (d *device) startMemcached(how launch) (port string, p *program) {
	d.t.Helper()
	port = freePort(d.t)
	p = d.start(how, "memcached", "-u", "root", "-l", "127.0.0.1", "-p", port, "-t", "4", "-U", "0")
	listening(d.t, port)
	return port, p
}

// TestRunMemcached: a server with four threads and libevent.
func TestRunMemcached(t *testing.T) {
	need(t, "memcached", "python3")
	d := mountSMC(t)
	port, server := d.startMemcached(underRun)
	count := memcachedMeter(t, port)
	count.wantAll(d, 8*200, func() { d.wantSMC(8, func() { d.run(underRun, "python3", "-c", memcachedClient, port) }) })
	d.wantPlain(func() { d.run(asItIs, "python3", "-c", memcachedClient, port) })
	server.end()
	d.WantCount(0)
}

func (d *device) startHTTPServer(how launch, dir string) (port string) {
	d.t.Helper()
	port = freePort(d.t)
	d.start(how, "python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, port)
	listening(d.t, port)
	return port
}

// asyncioProgram is a server on asyncio that echoes (serve PORT), a client of 20 connections that has 1 MB echoed on each (talk PORT), or both in
// one (without arguments).
const asyncioProgram = `
import asyncio, os, sys
async def echo(r, w):
    while data := await r.read(65536):
        w.write(data)
        await w.drain()
    w.close()
async def talk(port):
    r, w = await asyncio.open_connection('127.0.0.1', port)
    data = os.urandom(1 << 20)
    async def send():
        w.write(data)
        await w.drain()
        w.write_eof()
    got, _ = await asyncio.gather(r.read(), send())
    assert got == data
    w.close()
async def main(role='', port=0):
    if role != 'talk':
        server = await asyncio.start_server(echo, '127.0.0.1', int(port))
        port = server.sockets[0].getsockname()[1]
    if role == 'serve':
        await server.serve_forever()
    await asyncio.wait_for(asyncio.gather(*[talk(port) for _ in range(20)]), 50)
asyncio.run(main(*sys.argv[1:]))
`

const asyncioConns, asyncioBytes = 20, 20 * 2 << 20 // there and back

func (d *device) startAsyncio(how launch) (port string) {
	d.t.Helper()
	port = freePort(d.t)
	d.start(how, "python3", "-c", asyncioProgram, "serve", port)
	listening(d.t, port)
	return port
}

func (d *device) asyncioTalk(how launch, port string) int64 {
	d.t.Helper()
	d.run(how, "python3", "-c", asyncioProgram, "talk", port)
	return asyncioBytes
}

// TestRunPython: asyncio, a program that is connected to itself, and http.server.
func TestRunPython(t *testing.T) {
	need(t, "python3", "curl")
	d := mountSMC(t)
	d.wantGrowth(asyncioBytes, func() { d.wantSMC(asyncioConns, func() { d.run(underRun, "python3", "-c", asyncioProgram) }) })

	dir := tempDir(t)
	_, contents := bigFile(t, dir, 20<<20)
	port := d.startHTTPServer(underRun, dir)
	for _, how := range []launch{underRun, asItIs} {
		d.wantCurl(underRun, how, "http://127.0.0.1:"+port+"/big", contents)
	}
}

// TestRunBuffers: SMC_RCVBUF, and SO_RCVBUF of the program's own, size the DMBs.
func TestRunBuffers(t *testing.T) {
	need(t, "python3")
	d := mountSMC(t)
	for _, row := range []struct {
		option string
		setopt int
		want   uint32
	}{{"", 0, 1 << 20}, {"64k", 0, 64 << 10}, {"1m", 0, 1 << 20}, {"100k", 0, 128 << 10}, {"", 200 << 10, 256 << 10}} {
		args := []string{"python3", "-c", `
import socket, sys
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()
c = socket.socket()
if int(sys.argv[1]): c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[1]))
c.connect(l.getsockname()); s, _ = l.accept(); c.send(b'x'); s.recv(1)
print(c.getsockname()[1], flush=True); sys.stdin.read()`, strconv.Itoa(row.setopt)}
		if row.option != "" {
			args = append([]string{"env", "SMC_RCVBUF=" + row.option}, args...)
		}
		cmd := d.command(underRun, args...)
		in, _ := cmd.StdinPipe()
		out := new(logBuffer)
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the program", func() error {
			if !strings.Contains(out.String(), "\n") {
				return fmt.Errorf("it prints nothing")
			}
			return nil
		})
		found := false
		for _, c := range d.connsTo(strings.TrimSpace(out.String())) {
			if c.Role == "client" {
				found = true
				if c.Rcvbuf != row.want-32 {
					t.Errorf("SMC_RCVBUF=%q, SO_RCVBUF %d: a ring of %d", row.option, row.setopt, c.Rcvbuf)
				}
			}
		}
		if !found {
			t.Error("the connection is not in conns")
		}
		in.Close()
		cmd.Wait()
	}
}

// TestRunLightTraffic: where connections come and go with little, new link groups get small rings, a forked server's too; what carries
// more ends that.
func TestRunLightTraffic(t *testing.T) {
	d := mountSMC(t)
	port := freePort(t)
	d.start(underRun, filepath.Join(bin, "smc-run-stress"), "serve", port) // threads, and a child for every other client
	listening(t, port)
	client := startPeer(t, d.Point)
	talk := func(n int64) (process uint32, ring int) { // of the server's
		conn := client.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
		echoed(conn, n)
		i := conn.Info()
		wantError(t, "Close", conn.Close(), nil)
		return i.PeerProcess, i.WriteBuffer
	}
	small, large := 64<<10-smc.CDCLen, 1<<20-smc.CDCLen
	parent, first := talk(10)
	if first != large {
		t.Errorf("the first ring has %d bytes", first)
	}
	waitFor(t, "a child with a small ring", func() error {
		process, ring := talk(10)
		if process == parent || ring != small {
			return fmt.Errorf("process %d, a ring of %d", process, ring)
		}
		return nil
	})
	talk(300 << 10)
	for i := 0; ; i++ {
		process, ring := talk(10)
		if process != parent && ring == large {
			return
		}
		if i == 6 {
			t.Fatalf("process %d, a ring of %d after much came", process, ring)
		}
	}
}
