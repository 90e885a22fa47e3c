// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
)

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
	if err := tryEcho(c, n); err != nil {
		c.t.Fatal(err)
	}
}

func tryEcho(c *peerConn, n int64) error {
	seed := seeds.Add(1)
	sent := later(func() (string, error) { return c.Send(seed, n, 64<<10) })
	got, errRead := c.Receive(seed+1<<32, n, 64<<10)
	want, errWrite := sent()
	if errRead != nil || errWrite != nil || got != want {
		return fmt.Errorf("echo of %d bytes: %v, %v, checksums %s and %s", n, errWrite, errRead, want, got)
	}
	return nil
}

// goAsks is what a Go client says to a server under smc_run, and all that it is answered.
type goAsks struct{ request, answer []byte }

// TestRunGoClient: a Go client of servers under smc_run. All bytes are known, but for nginx's header.
func TestRunGoClient(t *testing.T) {
	need(t, "redis-server", "nginx", "memcached", "python3")
	value := make([]byte, 1<<20)
	contents(1).Read(value)
	small := value[:500<<10] // memcached takes less
	page := func(d *device) (dir string) {
		dir = tempDir(d.t)
		if err := os.WriteFile(filepath.Join(dir, "page"), value, 0o644); err != nil {
			d.t.Fatal(err)
		}
		return dir
	}
	get := []goAsks{{[]byte("GET /page HTTP/1.1\r\nHost: server\r\n\r\n"), value}}
	for _, row := range []struct {
		name  string
		start func(d *device) (port string)
		asks  []goAsks
	}{
		{"redis", func(d *device) string { port, _ := d.startRedis(underRun); return port }, []goAsks{
			{fmt.Appendf(nil, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n", len(value), value), []byte("+OK\r\n")},
			{[]byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), fmt.Appendf(nil, "$%d\r\n%s\r\n", len(value), value)},
		}},
		{"memcached", func(d *device) string { port, _ := d.startMemcached(underRun); return port }, []goAsks{
			{fmt.Appendf(nil, "set k 0 0 %d\r\n%s\r\n", len(small), small), []byte("STORED\r\n")},
			{[]byte("get k\r\n"), fmt.Appendf(nil, "VALUE k 0 %d\r\n%s\r\nEND\r\n", len(small), small)},
		}},
		{"nginx", func(d *device) string { port, _ := d.startNginx(underRun, page(d)); return port }, get},
		{"http.server", func(d *device) string { return d.startHTTPServer(underRun, page(d)) }, get},
		{"asyncio", func(d *device) string { return d.startAsyncio(underRun) }, []goAsks{{value, value}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := mountSMC(t)
			peer, port := startPeer(t, d.Point), row.start(d)
			d.wantSMC(1, func() {
				c := peer.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
				d.wantBothEnds(port, 1) // now, since http.server's end goes with its answer
				for _, ask := range row.asks {
					d.wantGrowthWithin(0, func() int64 { return ask.over(c) })
				}
				if i := c.Info(); i.Mode != libsmc.SMCD {
					t.Error(i)
				}
				wantError(t, "Close", c.Close(), nil)
			})
			d.wantNoneTo(port)
		})
	}
}

var ok = regexp.MustCompile(`^HTTP/1\.[01] 200 `)

// over asks, and returns the bytes that went over the connection: with an HTTP header, if one comes before the answer.
func (a *goAsks) over(c *peerConn) int64 {
	c.t.Helper()
	if n, err := c.Write(a.request); n != len(a.request) || err != nil {
		c.t.Fatalf("Write: %d, %v", n, err)
	}
	var got []byte
	for header := 0; len(got) < header+len(a.answer); {
		b, err := c.Read(256 << 10)
		if err != nil {
			c.t.Fatalf("%v after %d bytes", err, len(got))
		}
		got = append(got, b...)
		if end := bytes.Index(got, []byte("\r\n\r\n")); header == 0 && end > 0 && ok.Match(got) {
			header = end + 4
		}
	}
	if !bytes.HasSuffix(got, a.answer) {
		c.t.Errorf("%d bytes that are not the answer", len(got))
	}
	return int64(len(a.request) + len(got))
}

// TestRunGoServer: curl of a Go program's HTTP server, asyncio of one that echoes.
func TestRunGoServer(t *testing.T) {
	need(t, "curl", "python3")
	d := mountSMC(t)
	peer := startPeer(t, d.Point)
	l := peer.Listen(overSMC, "tcp", "127.0.0.1:0")
	peer.mustDo("Apps.ServeHTTP", PeerArgs{ID: l.ID})
	for _, size := range []int{1, 10 << 20, 1000} {
		page := make([]byte, size)
		contents(uint64(size)).Read(page)
		d.wantCurl(underRun, underRun, fmt.Sprintf("http://%s/%d", l.Address, size), page)
		d.wantCurl(underRun, asItIs, fmt.Sprintf("http://%s/%d", l.Address, size), page)
	}

	l = peer.Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	_, port, _ := strings.Cut(l.Address, ":")
	d.wantSMC(asyncioConns, func() { d.wantGrowthWithin(0, func() int64 { return d.asyncioTalk(underRun, port) }) })
	d.wantPlain(func() { d.asyncioTalk(asItIs, port) })
}

// TestRunGoLate: a client under smc_run that connects without waiting, is answered by a Go server, and does something else for longer
// than a kernel would wait for its Confirm.
func TestRunGoLate(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	d := mountSMC(t)
	l := startPeer(t, d.Point).Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	_, port, _ := strings.Cut(l.Address, ":")
	d.wantSMC(1, func() {
		out := d.run(underRun, "python3", "-c", `
import socket, sys, time
s = socket.socket()
s.setblocking(False)
s.connect_ex(("127.0.0.1", int(sys.argv[1])))
time.sleep(0.1)
s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) # carries the handshake on, as far as it goes
time.sleep(6.5)
s.setblocking(True)
s.sendall(b"late")
print(s.recv(4).decode())`, port)
		if out != "late\n" {
			t.Errorf("it was answered %q", out)
		}
	})
	d.WantCount(0)
}
