// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"testing"
)

// runPrograms are servers with their clients, each of the two under smc_run or plain.
var runPrograms = []struct {
	name  string
	needs []string
	gives int // handshakes that its clients may give up: see wantWrk
	talk  func(d *device, server, client launch)
}{
	{"nginx", []string{"nginx", "curl", "wrk"}, 1, func(d *device, server, client launch) {
		dir := tempDir(d.t)
		_, contents := bigFile(d.t, dir, 20<<20)
		port, _ := d.startNginx(server, dir)
		d.wantCurl(server, client, "http://127.0.0.1:"+port+"/big", contents)
		d.wantWrk(server, client, port, "48")
	}},
	{"memcached", []string{"memcached", "python3"}, 0, func(d *device, server, client launch) {
		port, _ := d.startMemcached(server)
		// What the client has to compare is most of it; the rest are commands and answers.
		values := int64(0)
		for k := range int64(200) {
			values += 8 * 2 * (1 + k*997%90000)
		}
		d.wantMode(server, client, 8, 8*200*100, func() int64 {
			d.run(client, "python3", "-c", memcachedClient, port)
			return values
		})
	}},
	{"socat", []string{"socat"}, 0, func(d *device, server, client launch) {
		path, contents := bigFile(d.t, tempDir(d.t), 20<<20)
		d.socat(server, client, true, path, contents)
		d.socat(server, client, false, path, contents)
	}},
	{"iperf3", []string{"iperf3"}, 0, func(d *device, server, client launch) {
		port := d.startIperf(server)
		for _, args := range [][]string{{"-n", "100M"}, {"-R", "-n", "100M"}} {
			d.wantMode(server, client, 2, iperfControl, func() int64 { return d.iperf(client, port, args...) })
		}
	}},
	{"http.server", []string{"python3", "curl"}, 0, func(d *device, server, client launch) {
		dir := tempDir(d.t)
		_, contents := bigFile(d.t, dir, 20<<20)
		d.wantCurl(server, client, "http://127.0.0.1:"+d.startHTTPServer(server, dir)+"/big", contents)
	}},
	{"asyncio", []string{"python3"}, 0, func(d *device, server, client launch) {
		port := d.startAsyncio(server)
		d.wantMode(server, client, asyncioConns, 0, func() int64 { return d.asyncioTalk(client, port) })
	}},
	{"sockperf", []string{"sockperf"}, 0, func(d *device, server, client launch) {
		load := &sockperfLoads[0]
		port := d.startSockperf(server)
		d.wantMode(server, client, 1, load.uncounted(), func() int64 { return d.sockperf(client, port, load) })
	}},
	{"redis", []string{"redis-server", "redis-cli"}, 0, func(d *device, server, client launch) {
		port, p := d.startRedis(server)
		count := redisMeter(d.t, p)
		before := count.count()
		d.wantMode(server, client, 11, 0, func() int64 {
			d.publish(client, port, d.start(client, "redis-cli", "-p", port, "subscribe", "news"))
			return count.count() - before
		})
	}},
}

// TestRunCombinations: they work whoever of the two is under smc_run, in SMC-D mode where both are. Where one is, that one counts that its
// peer is not.
func TestRunCombinations(t *testing.T) {
	for _, program := range runPrograms {
		for _, server := range []launch{underRun, asItIs} {
			for _, client := range []launch{underRun, asItIs} {
				t.Run(fmt.Sprintf("%s, server %s, client %s", program.name, server, client), func(t *testing.T) {
					if program.gives == 0 {
						t.Parallel() // each on a device of its own; those in which many clients hurry want the machine
					}
					need(t, program.needs...)
					d := mountSMC(t)
					program.talk(d, server, client)
					d.wantPeerNoSMC(server == underRun && client == asItIs, client == underRun && server == asItIs, program.gives)
				})
			}
		}
	}
}

// wantPeerNoSMC fails the test unless PEERNOSMC has been counted by servers, by clients, and nothing else but so many handshakes that
// clients may have given up, or ended by a Decline since they closed in the middle: as wrk does with its first connection, if its server does
// not answer at once.
func (d *device) wantPeerNoSMC(byServers, byClients bool, givenUp int) {
	d.t.Helper()
	h := d.handshakes()
	for _, side := range []struct {
		want   bool
		have   map[string]int
		closed string
	}{{byServers, h.ServerFallback, "PEERDECL"}, {byClients, h.ClientFallback, "OPTUNSUPP"}} {
		n, closed := side.have["PEERNOSMC"], min(side.have[side.closed], givenUp)
		if (n > 0) != side.want || len(grown(side.have, map[string]int{"PEERNOSMC": n, side.closed: closed})) != 0 {
			d.t.Errorf("counted by servers (%v) and clients (%v): %+v", byServers, byClients, h)
		}
	}
	if h.ServerErrors > givenUp || h.ClientErrors != 0 {
		d.t.Errorf("failures: %+v", h)
	}
}
