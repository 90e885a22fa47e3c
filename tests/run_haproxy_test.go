// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// With splice wherever it can be used, in both directions.
const haproxyConfig = `global
  nbthread 2
defaults
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  option splice-request
  option splice-response
  option splice-auto
  default_backend nginx
frontend http
  mode http
  bind 127.0.0.1:HTTP
frontend tcp
  mode tcp
  bind 127.0.0.1:TCP
  default_backend bytes
backend nginx
  mode http
  server one 127.0.0.1:NGINX
backend bytes
  mode tcp
  server one 127.0.0.1:NGINX
`

func (d *device) startHaproxy(how launch, nginx string) (http, tcp string, p *program) {
	d.t.Helper()
	need(d.t, "haproxy")
	http, tcp = freePort(d.t), freePort(d.t)
	config := filepath.Join(tempDir(d.t), "config")
	text := strings.NewReplacer("HTTP", http, "TCP", tcp, "NGINX", nginx).Replace(haproxyConfig)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	p = d.start(how, "haproxy", "-db", "-f", config)
	listening(d.t, http)
	return http, tcp, p
}

// TestRunHaproxy: two threads between curl or wrk and nginx, as TCP and as HTTP, 50 MB by splice; and its end, when the last has gone.
func TestRunHaproxy(t *testing.T) {
	d := mountSMC(t)
	dir := tempDir(t)
	_, contents := bigFile(t, dir, 50<<20)
	nginx, _ := d.startNginx(underRun, dir)
	http, tcp, haproxy := d.startHaproxy(underRun, nginx)

	got := filepath.Join(tempDir(t), "got")
	// In HTTP haproxy changes the headers of what it hands on.
	for port, more := range map[string]int64{tcp: 0, http: 500} {
		d.wantSMC(2, func() {
			d.wantGrowthWithin(more, func() int64 { return 2*d.curl(underRun, "http://127.0.0.1:"+port+"/big", got) - more/2 })
		})
		wantFile(t, got, contents)
		d.wantSMCBut(64, -1, func() {
			end := d.wrk(underRun, port, "32")
			d.wantBothEnds(port, 32)
			if out, err := end(); err != nil || strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
				t.Errorf("wrk: %v\n%s", err, out)
			}
		})
	}
	d.wantNoneTo(http) // HAProxy 2.6 can crash if it is told to end while its last clients do, over TCP, too
	d.wantNoneTo(tcp)
	haproxy.cmd.Process.Signal(syscall.SIGUSR1)
	haproxy.wantEnd(t)
	d.wantNoneTo(nginx)
	d.WantCount(0)
}
