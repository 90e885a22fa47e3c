// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/tree"
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

// wantBothEnds fails the test unless at least n connections to a port stand in conns, in SMC-D mode at both ends.
func (d *device) wantBothEnds(port string, n int) {
	d.t.Helper()
	waitFor(d.t, "connections in conns", func() error {
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
		return nil
	})
}

func (d *device) startRedis(how launch) (port string, p *program) {
	d.t.Helper()
	need(d.t, "redis-server", "redis-cli", "redis-benchmark")
	port = freePort(d.t)
	p = d.start(how, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", tempDir(d.t))
	listening(d.t, port)
	return port, p
}

// TestRunRedis: redis-benchmark's load, a value of 100 MB, and a background save under load; with one side plain, too.
func TestRunRedis(t *testing.T) {
	d := mountSMC(t)
	port, server := d.startRedis(underRun)
	d.wantSMC(1, func() { d.run(underRun, "redis-cli", "-p", port, "set", "a", "b") })
	load := func(how launch, tests string) string {
		return d.run(how, "redis-benchmark", "-p", port, "-q", "-t", tests, "-n", "20000", "-c", "50", "-d", "1024")
	}
	d.wantSMC(-1, func() { load(underRun, "set,get") })
	d.wantPlain(func() { load(asItIs, "get") })

	value, contents := bigFile(t, tempDir(t), 100<<20)
	before := d.xferBytes()
	d.wantSMC(1, func() { d.run(underRun, "sh", "-c", "redis-cli -p "+port+" -x set big < "+value) })
	if grown := d.xferBytes() - before; grown < 100<<20 || grown > 100<<20+1000 {
		t.Errorf("xfer_bytes grew by %d", grown)
	}
	got := filepath.Join(tempDir(t), "got")
	d.wantSMC(1, func() { d.run(underRun, "sh", "-c", "redis-cli -p "+port+" --raw get big > "+got) })
	wantFile(t, got, append(contents, '\n'))

	wait := later(func() (string, error) {
		return d.try(underRun, "redis-benchmark", "-p", port, "-q", "-t", "set", "-n", "100000", "-c", "50")
	})
	d.wantBothEnds(port, 50)
	if out := d.run(underRun, "redis-cli", "-p", port, "bgsave"); !strings.Contains(out, "started") {
		t.Errorf("bgsave: %s", out)
	}
	if out, err := wait(); err != nil {
		t.Errorf("redis-benchmark during bgsave: %v %s", err, out)
	}
	waitFor(t, "the save", func() error {
		if out := d.run(underRun, "redis-cli", "-p", port, "info", "persistence"); !strings.Contains(out, "rdb_bgsave_in_progress:0") ||
			!strings.Contains(out, "rdb_last_bgsave_status:ok") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	server.end()
	d.WantCount(0)
}

// TestRunRedisPubSub: a subscriber hears what is published, in SMC-D mode at both ends.
func TestRunRedisPubSub(t *testing.T) {
	d := mountSMC(t)
	port, _ := d.startRedis(underRun)
	subscriber := d.start(underRun, "redis-cli", "-p", port, "subscribe", "news")
	d.wantBothEnds(port, 1)
	waitFor(t, "the subscription", func() error {
		if !strings.Contains(subscriber.out.String(), "subscribe") {
			return fmt.Errorf("it says %q", subscriber.out)
		}
		return nil
	})
	for i := range 10 {
		if out := d.run(underRun, "redis-cli", "-p", port, "publish", "news", fmt.Sprintf("item-%d", i)); out != "1\n" {
			t.Fatalf("publish says %q", out)
		}
	}
	waitFor(t, "the news", func() error {
		if !strings.Contains(subscriber.out.String(), "item-9") {
			return fmt.Errorf("it says %q", subscriber.out)
		}
		return nil
	})
}

// TestRunRedisPlainServer: a client under smc_run and a server that knows nothing of it.
func TestRunRedisPlainServer(t *testing.T) {
	d := mountSMC(t)
	port, _ := d.startRedis(asItIs)
	d.wantPlain(func() {
		d.run(underRun, "redis-benchmark", "-p", port, "-q", "-t", "set,get", "-n", "10000", "-c", "20")
	})
}

const nginxConfig = `daemon off; master_process on; worker_processes 4; pid DIR/pid; error_log DIR/error warn; user root;
events { worker_connections 2000; }
http { access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path DIR/1; proxy_temp_path DIR/2; fastcgi_temp_path DIR/3; uwsgi_temp_path DIR/4; scgi_temp_path DIR/5;
  server { listen 127.0.0.1:PORT; root DIR; } }
`

// TestRunNginx: four workers that share a listener, keep-alive, and 100 MB by sendfile.
func TestRunNginx(t *testing.T) {
	need(t, "nginx", "wrk", "curl")
	d := mountSMC(t)
	dir, port := tempDir(t), freePort(t)
	config := strings.NewReplacer("DIR", dir, "PORT", port).Replace(nginxConfig)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	_, contents := bigFile(t, dir, 100<<20)
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := d.start(underRun, "nginx", "-c", filepath.Join(dir, "conf"))
	listening(t, port)
	url, got := "http://127.0.0.1:"+port, filepath.Join(tempDir(t), "got")
	for _, how := range []launch{underRun, asItIs} {
		get := func() { d.run(how, "curl", "-sf", "-o", got, url+"/big") }
		before := d.xferBytes()
		if how == underRun {
			d.wantSMC(1, get)
		} else {
			d.wantPlain(get)
		}
		wantFile(t, got, contents)
		if grown := d.xferBytes() - before; how == underRun && (grown < 100<<20 || grown > 100<<20+1000) {
			t.Errorf("xfer_bytes grew by %d", grown)
		}
		os.Remove(got)
	}
	wait := later(func() (string, error) { return d.try(underRun, "wrk", "-t", "4", "-c", "200", "-d", "3", url+"/") })
	d.wantBothEnds(port, 200)
	if out, err := wait(); err != nil || strings.Contains(out, "Socket errors") || !strings.Contains(out, "Requests/sec") {
		t.Errorf("wrk: %v\n%s", err, out)
	}
	server.cmd.Process.Signal(os.Interrupt)
	server.cmd.Wait()
	d.WantCount(0)
}

// TestRunSocat pipes a file each way; the one side is the client, the other the server.
func TestRunSocat(t *testing.T) {
	need(t, "socat")
	d := mountSMC(t)
	path, contents := bigFile(t, tempDir(t), 50<<20)
	for _, upload := range []bool{true, false} {
		got, port := filepath.Join(tempDir(t), "got"), freePort(t)
		from, to := "TCP-LISTEN:"+port+",bind=127.0.0.1", "TCP:127.0.0.1:"+port
		server, client := []string{"socat", "-u", from, "CREATE:" + got}, []string{"socat", "-u", "FILE:" + path, to}
		if !upload {
			server, client = []string{"socat", "-u", "FILE:" + path, from}, []string{"socat", "-u", to, "CREATE:" + got}
		}
		p := d.start(underRun, server...)
		listening(t, port)
		d.wantGrowth(50<<20, func() {
			d.wantSMC(1, func() {
				d.run(underRun, client...)
				p.cmd.Wait()
			})
		})
		wantFile(t, got, contents)
	}
	d.WantCount(0)
}

// TestRunIperf3: both directions, one stream and four; and one side plain.
func TestRunIperf3(t *testing.T) {
	need(t, "iperf3")
	d := mountSMC(t)
	port := freePort(t)
	d.start(underRun, "iperf3", "-s", "-B", "127.0.0.1", "-p", port)
	listening(t, port)
	for _, args := range [][]string{{"-n", "500M"}, {"-R", "-n", "500M"}, {"-P", "4", "-n", "500M"}} {
		before := d.xferBytes()
		d.wantSMC(-1, func() { d.run(underRun, append([]string{"iperf3", "-c", "127.0.0.1", "-p", port}, args...)...) })
		if grown := d.xferBytes() - before; grown < 500<<20 {
			t.Errorf("iperf3 %v: xfer_bytes grew by %d", args, grown)
		}
	}
	d.wantPlain(func() { d.run(asItIs, "iperf3", "-c", "127.0.0.1", "-p", port, "-n", "50M") })
}

// TestRunSockperf: ping-pong and throughput. As fast as it goes, ping-pong is more than sockperf has room for in a second, now and then.
func TestRunSockperf(t *testing.T) {
	need(t, "sockperf")
	d := mountSMC(t)
	port := freePort(t)
	d.start(underRun, "sockperf", "sr", "--tcp", "-i", "127.0.0.1", "-p", port)
	listening(t, port)
	for _, args := range [][]string{{"pp", "--msg-size=14", "--mps=50000"}, {"tp", "--msg-size=64000"}} {
		args = append([]string{"sockperf", args[0], "--tcp", "-i", "127.0.0.1", "-p", port, "-t", "1"}, args[1:]...)
		d.wantSMC(1, func() { d.run(underRun, args...) })
		d.wantPlain(func() { d.run(asItIs, args...) })
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

// TestRunMemcached: a server with four threads and libevent.
func TestRunMemcached(t *testing.T) {
	need(t, "memcached", "python3")
	d := mountSMC(t)
	port := freePort(t)
	server := d.start(underRun, "memcached", "-u", "root", "-l", "127.0.0.1", "-p", port, "-t", "4", "-U", "0")
	listening(t, port)
	d.wantSMC(8, func() { d.run(underRun, "python3", "-c", memcachedClient, port) })
	d.wantPlain(func() { d.run(asItIs, "python3", "-c", memcachedClient, port) })
	server.end()
	d.WantCount(0)
}

// asyncioPair is a server and a client on asyncio in one program: 20 connections that echo 1 MB each.
const asyncioPair = `
import asyncio, os
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
async def main():
    server = await asyncio.start_server(echo, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.wait_for(asyncio.gather(*[talk(port) for _ in range(20)]), 50)
    server.close()
asyncio.run(main())
`

// TestRunPython: asyncio, a program that is connected to itself, and http.server.
func TestRunPython(t *testing.T) {
	need(t, "python3", "curl")
	d := mountSMC(t)
	d.wantGrowth(40<<20, func() { d.wantSMC(20, func() { d.run(underRun, "python3", "-c", asyncioPair) }) })

	dir, port := tempDir(t), freePort(t)
	_, contents := bigFile(t, dir, 20<<20)
	d.start(underRun, "python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, port)
	listening(t, port)
	got := filepath.Join(tempDir(t), "got")
	get := func(how launch) { d.run(how, "curl", "-sf", "-o", got, "http://127.0.0.1:"+port+"/big") }
	d.wantSMC(1, func() { get(underRun) })
	wantFile(t, got, contents)
	d.wantPlain(func() { get(asItIs) })
	wantFile(t, got, contents)
}

// TestRunGo: a Go program with libsmc on one side and a C program on the other, each way; 16 MB each way with a checksum.
func TestRunGo(t *testing.T) {
	need(t, "socat")
	d := mountSMC(t)
	peer := startPeer(t, d.Point)

	port := freePort(t)
	d.start(underRun, "socat", "TCP-LISTEN:"+port+",bind=127.0.0.1,fork", "EXEC:cat")
	listening(t, port)
	for range 3 { // the second and third in the same link group
		d.wantSMC(1, func() {
			c := peer.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
			d.wantGrowth(32<<20, func() { echoed(c, 16<<20) })
			d.wantBothEnds(port, 1)
			c.Close()
		})
		d.wantNoneTo(port)
	}

	l := peer.Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	_, goPort, _ := strings.Cut(l.Address, ":")
	path, contents := bigFile(t, tempDir(t), 16<<20)
	got := filepath.Join(tempDir(t), "got")
	for range 3 {
		d.wantGrowth(32<<20, func() {
			d.wantSMC(1, func() { d.run(underRun, "sh", "-c", "socat -t 10 - TCP:127.0.0.1:"+goPort+" < "+path+" > "+got) })
		})
		wantFile(t, got, contents)
	}
}

// echoed sends n bytes that come back.
func echoed(c *peerConn, n int64) {
	c.t.Helper()
	seed := seeds.Add(1)
	sent := later(func() (string, error) { return c.Send(seed, n, 64<<10) })
	got, errRead := c.Receive(seed+1<<32, n, 64<<10)
	want, errWrite := sent()
	if errRead != nil || errWrite != nil || got != want {
		c.t.Fatalf("echo of %d bytes: %v, %v, checksums %s and %s", n, errWrite, errRead, want, got)
	}
}

// TestRunFallbacks: the reasons of libsmc, counted in the same places.
func TestRunFallbacks(t *testing.T) {
	need(t, "socat")
	d := mountSMC(t)
	talk := func(server, client launch, env ...string) {
		t.Helper()
		port := freePort(t)
		p := d.start(server, "socat", "TCP-LISTEN:"+port+",bind=127.0.0.1", "EXEC:cat")
		listening(t, port)
		if out := d.run(client, append(append([]string{"env"}, env...), "sh", "-c", "echo hello | socat -t 5 - TCP:127.0.0.1:"+port)...); out != "hello\n" {
			t.Errorf("it echoes %q", out)
		}
		p.cmd.Wait()
	}
	fallback := func(role, reason string) uint64 {
		h := d.treeStats().Handshake
		return map[string]map[string]uint64{"client": h.ClientFallback, "server": h.ServerFallback}[role][reason]
	}
	d.wantPlain(func() {
		talk(asItIs, underRun)
		talk(underRun, asItIs)
	})
	if c, s := fallback("client", "PEERNOSMC"), fallback("server", "PEERNOSMC"); c != 1 || s != 1 {
		t.Errorf("PEERNOSMC: %d, %d", c, s)
	}
	d.wantPlain(func() { talk(underRun, underRun, "ISMFS_MOUNT=off") })
	if s := fallback("server", "PEERNOSMC"); s != 2 {
		t.Errorf("PEERNOSMC: %d", s)
	}
	if err := d.Write("active", "drain"); err != nil {
		t.Fatal(err)
	}
	d.wantPlain(func() { talk(underRun, underRun) })
	if c, s := fallback("client", "NOSMCDEV"), fallback("server", "PEERDECL"); c != 1 || s != 1 {
		t.Errorf("client's NOSMCDEV %d, server's PEERDECL %d", c, s)
	}
	if err := d.Write("active", "1"); err != nil {
		t.Fatal(err)
	}
	d.wantSMC(1, func() { talk(underRun, underRun) })
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
