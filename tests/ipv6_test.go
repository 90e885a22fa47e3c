// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/tree"
)

// needIPv6 skips a test on a machine without ::1, but not in CI.
func needIPv6(t *testing.T) {
	t.Helper()
	if hasIPv6() {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("no IPv6 on this machine: CI must have ::1 on its loopback")
	}
	t.Skip("no IPv6 on this machine")
}

// TestShownSix: a connection over ::1, and one of IPv4 to a socket of IPv6, in the words of conns and of smcd-dump.
func TestShownSix(t *testing.T) {
	needIPv6(t)
	d, client, server := smcPair(t)
	for _, row := range []struct{ listen, host, address, shown string }{
		{"[::1]:0", "::1", "::1", `::1:%d`},
		{":0", "127.0.0.1", "127.0.0.1", `127.0.0.1:%d`}, // the server's own name for the client is ::ffff:127.0.0.1
	} {
		l := server.Listen(overSMC, "tcp", row.listen)
		a := client.MustDial(overSMC, "tcp", onAddress(row.host, l.Address))
		b := l.MustAccept()
		wantError(t, "handshake", a.Handshake(0), nil)
		wantSMCD(d, a, b)
		d.wantGrowth(20_000, func() { exchange(a, b, 10_000) })
		d.wantShown(row.address, row.shown, l.Address)
		wantError(t, "Close", a.Close(), nil)
		wantError(t, "Close", b.Close(), nil)
		wantError(t, "Close", l.Close(), nil)
	}
}

// wantShown: both ends of the one connection to a listener are in conns, with this address at each end, and smcd-dump shows it in this form.
func (d *device) wantShown(address, form, listener string) {
	d.t.Helper()
	port := netip.MustParseAddrPort(listener).Port()
	conns := d.connsTo(strconv.Itoa(int(port)))
	if len(conns) != 2 {
		d.t.Fatalf("conns has %d ends:\n%s", len(conns), d.Read("conns"))
	}
	dump := d.dump("sockets", "-a")
	for i, c := range conns {
		want := netip.MustParseAddr(address)
		if c.Mode != tree.ModeSMCD || c.Local.Addr() != want || c.Peer.Addr() != want || c.Local != conns[1-i].Peer {
			d.t.Errorf("conns shows %+v, want SMCD from and to %v", c, want)
		}
		line := regexp.QuoteMeta(fmt.Sprintf(form, c.Local.Port())) + ` +` + regexp.QuoteMeta(fmt.Sprintf(form, c.Peer.Port())) + ` +0000 SMCD`
		if !regexp.MustCompile(line).MatchString(dump) {
			d.t.Errorf("smcd-dump sockets has no %q:\n%s", line, dump)
		}
	}
}

// TestShownAny: a listener on [::], of libsmc and under smc_run, is that in conns and in JSON. In the table it is 0.0.0.0, as smcss has it,
// which takes an address with nothing behind its first four bytes for IPv4.
func TestShownAny(t *testing.T) {
	need(t, "python3")
	needIPv6(t)
	d := mountSMC(t)
	l := startPeer(t, d.Point).Listen(overSMC, "tcp", "[::]:0")
	ports := []string{fmt.Sprint(netip.MustParseAddrPort(l.Address).Port()), freePort(t)}
	server := d.start(underRun, "python3", "-c", `
import socket, sys, time
l = socket.socket(socket.AF_INET6); l.bind(("::", int(sys.argv[1]))); l.listen(1); time.sleep(1000)`, ports[1])
	listening(t, ports[1])
	conns, table, json := d.Read("conns"), d.dump("sockets", "-l"), d.dump("sockets", "-a", "--json")
	for _, port := range ports {
		for text, want := range map[string]string{conns: " [::]:" + port + " ", table: " 0.0.0.0:" + port + " ", json: `"[::]:` + port + `"`} {
			if !strings.Contains(text, want) {
				t.Errorf("there is no %q in\n%s", want, text)
			}
		}
	}
	server.kill()
	wantError(t, "Close", l.Close(), nil)
}

// TestRunRedisSix: redis over ::1, under smc_run at either end or at both, and beside a client in Go.
func TestRunRedisSix(t *testing.T) {
	needIPv6(t)
	d := mountSMC(t)
	need(t, "redis-server", "redis-cli", "redis-benchmark")
	port, server := d.startRedisAt(underRun, "::1")
	cli := func(how launch, args ...string) string {
		return d.run(how, append([]string{"redis-cli", "-h", "::1", "-p", port}, args...)...)
	}
	d.wantSMC(1, func() { cli(underRun, "set", "a", "b") })
	d.wantPlain(func() { cli(asItIs, "get", "a") })
	load := d.start(underRun, "redis-benchmark", "-h", "::1", "-p", port, "-q", "-t", "set,get", "-n", "10000000", "-c", "1", "-d", "1024")
	d.wantBothEnds(port, 1)
	for _, c := range d.connsTo(port) {
		if c.Mode == tree.ModeSMCD && (c.Local.Addr() != netip.IPv6Loopback() || c.Peer.Addr() != netip.IPv6Loopback()) {
			t.Errorf("conns shows %v to %v", c.Local, c.Peer)
		}
	}
	load.kill()
	d.wantNoneTo(port)
	peer := startPeer(t, d.Point)
	d.wantSMC(1, func() {
		c := peer.MustDial(overSMC, "tcp", "[::1]:"+port)
		const ping, pong = "PING\r\n", "+PONG\r\n"
		if _, err := c.Write([]byte(ping)); err != nil {
			t.Fatal(err)
		}
		if answer, err := c.ReadFull(len(pong)); err != nil || string(answer) != pong {
			t.Errorf("redis says %q, %v", answer, err)
		}
		wantError(t, "Close", c.Close(), nil)
	})
	server.end()
	d.wantNoneTo(port)
	peer.CloseIdle()
	d.WantCount(0)
}
