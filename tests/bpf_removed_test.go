// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// TestProgramsRemoved: without the programs, which root can remove under programs that run, a marked listener goes on with
// TCP. Who was promised SMC is reset; connections that stand do not notice.
func TestProgramsRemoved(t *testing.T) {
	alone(t)
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			d := mountSMC(t)
			client, server := startPeer(t, d.Point), startPeer(t, d.Point)
			l := server.Listen(overSMC, network, map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
			a, b := connectTo(t, client, overSMC, l)
			wantSMCD(d, a, b)
			promised := client.MustDial(marked, network, l.Address)
			if err := os.RemoveAll(programsDir); err != nil {
				t.Fatal(err)
			}
			wantNoPrograms(t)
			for how, reason := range map[sockets]smc.DeclineCode{plain: 0, overSMC: smc.DeclCnfErr} {
				x, y := connectTo(t, client, how, l) // behind the one that was promised SMC
				if how == overSMC {
					wantTCP(x, reason, 0)
				}
				wantTCP(y, smc.DeclPeerNoSMC, 0)
				exchange(x, y, 1000)
			}
			_, err := promised.Read(1)
			wantError(t, "Read of one that was promised SMC", err, syscall.ECONNRESET)
			wantSMCD(d, a, b)
			d.wantGrowth(200<<10, func() { exchange(a, b, 100<<10) })
		})
	}
}

// TestRunProgramsRemoved: a server under smc_run goes on with those who were promised nothing, too.
func TestRunProgramsRemoved(t *testing.T) {
	alone(t)
	d := mountSMC(t)
	need(t, "redis-server", "redis-cli")
	ports := make(map[string]string)
	for _, address := range []string{"127.0.0.1", "::1"} {
		ports[address], _ = d.startRedisAt(underRun, address)
		d.wantSMC(1, func() { d.run(underRun, "redis-cli", "-h", address, "-p", ports[address], "ping") })
	}
	wantError(t, "rm -r", os.RemoveAll(programsDir), nil)
	wantNoPrograms(t)
	for address, port := range ports {
		if out := d.run(asItIs, "redis-cli", "-h", address, "-p", port, "ping"); out != "PONG\n" {
			t.Errorf("a plain client of %s: %q", address, out)
		}
	}
}
