// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// runFallbacks are libsmc's reasons. What an end is to say of itself is nil if it knows nothing of the device, and zero for SMC-D.
var runFallbacks = []struct {
	name           string
	mount          []string
	prepare        func(d *device)
	server, client launch
	env            string // of the client
	says           [2]*fallback
}{
	{
		name: "none", server: underRun, client: underRun,
		says: [2]*fallback{{}, {}},
	},
	{
		name: "plain server", server: asItIs, client: underRun,
		says: [2]*fallback{{reason: smc.DeclPeerNoSMC}, nil},
	},
	{
		name: "plain client", server: underRun, client: asItIs,
		says: [2]*fallback{nil, {reason: smc.DeclPeerNoSMC}},
	},
	{
		name: "switched off for the client", server: underRun, client: underRun, env: "ISMFS_MOUNT=off",
		says: [2]*fallback{nil, {reason: smc.DeclPeerNoSMC}},
	},
	{
		name: "draining", server: underRun, client: underRun,
		prepare: func(d *device) { wantError(d.t, "draining", d.Write("active", "drain"), nil) },
		says:    [2]*fallback{{reason: smc.DeclNoSMCDev}, {smc.DeclPeerDecl, smc.DeclNoSMCDev}},
	},
	{
		name: "no programs", server: underRun, client: underRun, mount: []string{"--sockets=off"},
		says: [2]*fallback{{reason: smc.DeclCnfErr}, {reason: smc.DeclNoSMCDev}},
	},
	{
		name: "no user EID", server: underRun, client: underRun,
		prepare: func(d *device) {
			for _, name := range strings.Fields(d.Read("ueid")) {
				wantError(d.t, "removing "+name, d.Write("ueid", "-"+name), nil)
			}
		},
		says: [2]*fallback{{smc.DeclPeerDecl, smc.DeclNoUEID}, {reason: smc.DeclNoUEID}},
	},
	{
		name: "no DMB for the client", server: underRun, client: underRun, mount: []string{"--max-dmbs=1"},
		says: [2]*fallback{{reason: smc.DeclMaxDMB}, {smc.DeclPeerDecl, smc.DeclMaxDMB}},
	},
	{
		name: "no DMB for the server", server: underRun, client: underRun, mount: []string{"--max-dmbs=1"},
		prepare: func(d *device) { startClient(d.t).Register(d, "00000000000b0f04", 4096) },
		says:    [2]*fallback{{smc.DeclPeerDecl, smc.DeclMaxDMB}, {reason: smc.DeclMaxDMB}},
	},
}

// TestRunFallbacks: the reasons of libsmc, counted in the same places, and told by conns, smcd-dump and with SMC_DEBUG. What was to be
// said is said whatever carries it.
func TestRunFallbacks(t *testing.T) {
	need(t, "socat")
	for _, row := range runFallbacks {
		t.Run(row.name, func(t *testing.T) {
			var d *device
			if slices.Contains(row.mount, "--sockets=off") {
				alone(t) // beside another device, which has programs, the reason is that they do not know this one
				d = mountDevice(t, row.mount...)
			} else {
				d = mountSMC(t, row.mount...)
			}
			if row.prepare != nil {
				row.prepare(d)
			}
			before, port := d.handshakes(), freePort(t)
			server := d.start(row.server, "socat", "TCP-LISTEN:"+port+",bind=127.0.0.1", "EXEC:cat")
			listening(t, port)
			client := d.command(row.client, "env", row.env, "socat", "-t", "5", "-", "TCP:127.0.0.1:"+port)
			client.Args = slices.DeleteFunc(client.Args, func(arg string) bool { return arg == "" })
			var heard, says logBuffer
			client.Stdout, client.Stderr = &heard, &says
			in, err := client.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Process.Kill() })
			io.WriteString(in, "hello\n")
			waitFor(t, "the echo", func() error {
				if heard.String() != "hello\n" {
					return fmt.Errorf("it is %q; the client says\n%s", &heard, &says)
				}
				return nil
			})
			d.wantSaid(port, row.says)
			in.Close()
			if err := client.Wait(); err != nil {
				t.Errorf("the client: %v\n%s", err, &says)
			}
			server.wantEnd(t)
			counted := d.handshakes().since(before)
			for i, text := range []string{says.String(), server.out.String()} {
				role := []string{"client", "server"}[i]
				want := make(map[string]int)
				if f := row.says[i]; f != nil && f.reason != 0 {
					want[f.reason.String()] = 1
				}
				if got := []map[string]int{counted.ClientFallback, counted.ServerFallback}[i]; !maps.Equal(got, want) {
					t.Errorf("%s: stats counts %v, want %v", role, got, want)
				}
				if line := debugLine(role, row.says[i]); line != nil && len(line.FindAllString(text, -1)) != 1 {
					t.Errorf("SMC_DEBUG does not say %q once:\n%s", line, text)
				}
			}
			if counted.ClientErrors != 0 || counted.ServerErrors != 0 {
				t.Errorf("counted %+v", counted)
			}
		})
	}
}

// wantSaid fails the test unless conns and smcd-dump show these two ends of the one connection to a port.
func (d *device) wantSaid(port string, says [2]*fallback) {
	d.t.Helper()
	conns, rows := make(map[string]int), make(map[string]int)
	for i, f := range says {
		switch role := []string{"client", "server"}[i]; {
		case f == nil:
		case f.reason == 0:
			conns[role+" SMCD 0 0"], rows[role+" SMCD"] = 1, 1
		default:
			conns[fmt.Sprintf("%s TCP %d %d", role, f.reason, f.diagnosis)] = 1
			row := fmt.Sprintf("%s TCP 0x%08x", role, uint32(f.reason))
			if f.diagnosis != 0 {
				row += fmt.Sprintf("/0x%08x", uint32(f.diagnosis))
			}
			rows[row] = 1
		}
	}
	have := make(map[string]int)
	for _, c := range d.connsTo(port) {
		have[fmt.Sprintf("%s %s %d %d", c.Role, c.Mode, smc.DeclineCode(c.Reason), smc.DeclineCode(c.PeerDiagnosis))]++
		if (c.Mode == tree.ModeSMCD) != (c.Token != "") {
			d.t.Errorf("mode %s with the token %q", c.Mode, c.Token)
		}
	}
	if !maps.Equal(have, conns) {
		d.t.Errorf("conns has %v, want %v", have, conns)
	}
	if have := d.dumpedTo(port); !maps.Equal(have, rows) {
		d.t.Errorf("smcd-dump has %v, want %v", have, rows)
	}
}

// debugLine is what an end says with SMC_DEBUG, once.
func debugLine(role string, f *fallback) *regexp.Regexp {
	switch {
	case f == nil:
		return nil
	case f.reason == 0:
		return regexp.MustCompile(`(?m)^libsmc-preload\[\d+\]: ` + role + ` fd \d+: SMC-D, token [0-9a-f]{16}, peer token [0-9a-f]{16}$`)
	case f.diagnosis == 0:
		return regexp.MustCompile(fmt.Sprintf(`(?m)^libsmc-preload\[\d+\]: %s fd \d+: TCP: %s$`, role, f.reason.String()))
	}
	return regexp.MustCompile(fmt.Sprintf(`(?m)^libsmc-preload\[\d+\]: %s fd \d+: TCP: %s, the peer says %s$`, role, f.reason.String(), f.diagnosis.String()))
}
