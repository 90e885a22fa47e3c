// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunSpawn: children of posix_spawn, posix_spawnp, system, popen and vfork have a connection that nobody has used, as TCP. One in SMC-D mode ends for them,
// and goes on where it was (preload/test/spawn.c).
func TestRunSpawn(t *testing.T) {
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		const each = 7 // connections of each kind: one for each way to start a child, and one more
		program, before, counts, bytes := filepath.Join(bin, "smc-run-test"), d.treeStats().Handshake, d.smcCounts(), d.xferBytes()
		var wrote int64
		if out := d.run(underRun, program, "spawn"); !strings.HasPrefix(out, "bytes ") {
			t.Errorf("it prints %q", out)
		} else if _, err := fmt.Sscanf(out, "bytes %d", &wrote); err != nil {
			t.Error(err)
		}
		after, now := d.treeStats().Handshake, d.smcCounts()
		if c, s := after.ClientFallback["PEERDECL"]-before.ClientFallback["PEERDECL"],
			after.ServerFallback["OPTUNSUPP"]-before.ServerFallback["OPTUNSUPP"]; c != each || s != each {
			t.Errorf("declined: %d clients, %d servers; want %d each", c, s, each)
		}
		if c, s := now.clients-counts.clients, now.servers-counts.servers; c != each || s != each {
			t.Errorf("SMC-D: %d clients, %d servers; want %d each", c, s, each)
		}
		if grown := d.xferBytes() - bytes; grown != wrote || wrote == 0 {
			t.Errorf("it has written %d bytes, xfer_bytes grew by %d", wrote, grown)
		}
		d.WantCount(0)
	})
}

// TestRunLimit: a program that is exec'ed has the soft limit of open files that it would have had, be it one that the program before has set.
func TestRunLimit(t *testing.T) {
	need(t, "prlimit")
	show := []string{"env", "-u", "LD_PRELOAD", "sh", "-c", "ulimit -Sn; ulimit -Hn"}
	d := mountSMC(t)
	for _, set := range [][]string{
		nil,
		{"prlimit", "--nofile=300:1000"},
		{"prlimit", "--nofile=1000:1000"},
		{"prlimit", "--nofile=300:1000", "prlimit", "--nofile=400:"},
		{"sh", "-c", `ulimit -Sn 200; exec "$0" "$@"`},
	} {
		args := append(set, show...)
		want := d.run(asItIs, args...)
		if got := d.run(underRun, args...); got != want {
			t.Errorf("%v: the limits are %q, want %q", set, got, want)
		}
	}
}
