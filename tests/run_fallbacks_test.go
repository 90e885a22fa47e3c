// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"testing"
)

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
