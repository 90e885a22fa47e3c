// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const nginxConfig = `daemon off; master_process on; worker_processes 4; pid DIR/pid; error_log DIR/error warn; user root;
events { worker_connections 2000; }
http { access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path DIR/1; proxy_temp_path DIR/2; fastcgi_temp_path DIR/3; uwsgi_temp_path DIR/4; scgi_temp_path DIR/5;
  server { listen 127.0.0.1:PORT; root DIR; } }
`

// startNginx starts it with four workers that serve dir, which is to have a page "index.html".
func (d *device) startNginx(how launch, dir string) (port string, p *program) {
	d.t.Helper()
	need(d.t, "nginx", "wrk", "curl")
	port = freePort(d.t)
	config := strings.NewReplacer("DIR", dir, "PORT", port).Replace(nginxConfig)
	for name, text := range map[string]string{"conf": config, "index.html": "hello\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	p = d.start(how, "nginx", "-c", filepath.Join(dir, "conf"))
	listening(d.t, port)
	return port, p
}

// curl gets a page into a file, and returns the bytes of the request and of the answer, as curl has counted them.
func (d *device) curl(how launch, url, to string) int64 {
	d.t.Helper()
	// In HTTP 1.0 no server sends the page in pieces, whose frames would not be counted.
	out := d.run(how, "curl", "-0", "-sf", "-o", to, "-w", "%{size_request} %{size_header} %{size_download}", url)
	var request, header, body int64
	if _, err := fmt.Sscan(out, &request, &header, &body); err != nil {
		d.t.Fatalf("curl prints %q", out)
	}
	return request + header + body
}

// wantCurl gets a page that has to have these contents, over one SMC connection if both ends know SMC.
func (d *device) wantCurl(server, client launch, url string, contents []byte) {
	d.t.Helper()
	got := filepath.Join(tempDir(d.t), "got")
	d.wantMode(server, client, 1, 0, func() int64 { return d.curl(client, url, got) })
	wantFile(d.t, got, contents)
}

// wantWrk loads nginx with many connections. wrk counts what has been answered; at its end each connection may have one request more on
// its way, and the answer.
func (d *device) wantWrk(server, client launch, port, conns string) {
	d.t.Helper()
	request := int64(len("GET / HTTP/1.1\r\nHost: 127.0.0.1:" + port + "\r\n\r\n"))
	answer := int64(len(d.run(client, "curl", "-sfi", "http://127.0.0.1:"+port+"/")))
	n, err := strconv.ParseInt(conns, 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	load := func(meanwhile func()) (moved int64) {
		d.t.Helper()
		end := d.wrk(client, port, conns)
		meanwhile()
		out, err := end()
		if err != nil || strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
			d.t.Errorf("wrk: %v\n%s", err, out)
			return 0
		}
		requests, _ := strconv.ParseInt(wrkRequests.FindStringSubmatch(out)[1], 10, 64)
		return requests * (request + answer)
	}
	if server != underRun || client != underRun {
		d.wantPlain(func() { load(func() { time.Sleep(time.Second) }) })
		return
	}
	// wrk connects once to see whether it can, and closes that at once.
	d.wantSMCBut(1, -1, func() {
		d.wantGrowthWithin(n*(request+answer), func() int64 {
			return load(func() {
				d.wantBothEnds(port, int(n))
				time.Sleep(time.Second)
			})
		})
	})
}

var wrkRequests = regexp.MustCompile(`([1-9]\d*) requests in `)

// wrk loads a server until end is called, however long it takes to see what the load is for. end returns what wrk has printed; that
// nothing has been answered is an error.
func (d *device) wrk(client launch, port, conns string) (end func() (out string, err error)) {
	d.t.Helper()
	p := d.start(client, "wrk", "-t", "4", "-c", conns, "-d", "10m", "http://127.0.0.1:"+port+"/")
	return func() (string, error) {
		p.cmd.Process.Signal(os.Interrupt)
		err := p.cmd.Wait()
		if err == nil && !wrkRequests.MatchString(p.out.String()) {
			err = errors.New("no request was answered")
		}
		return p.out.String(), err
	}
}

// TestRunNginx: four workers that share a listener, keep-alive, and 100 MB by sendfile.
func TestRunNginx(t *testing.T) {
	d := mountSMC(t)
	dir := tempDir(t)
	_, contents := bigFile(t, dir, 100<<20)
	port, server := d.startNginx(underRun, dir)
	for _, how := range []launch{underRun, asItIs} {
		d.wantCurl(underRun, how, "http://127.0.0.1:"+port+"/big", contents)
	}
	d.wantWrk(underRun, underRun, port, "200")
	server.cmd.Process.Signal(os.Interrupt)
	server.cmd.Wait()
	d.WantCount(0)
}
