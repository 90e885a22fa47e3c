// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"path/filepath"
	"testing"
)

// TestRunEarly: programs that write, shut down or close before the other side has come to answer find what TCP gives: nobody waits for
// anybody for ever, and ends are ends (preload/test/early.c).
func TestRunEarly(t *testing.T) {
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		program := filepath.Join(bin, "smc-run-test")
		d.wantPlain(func() { d.run(asItIs, program, "early") })
		d.run(underRun, program, "early")
		d.WantCount(0)
		if conns := d.Read("conns"); conns != "" {
			t.Errorf("conns still has\n%s", conns)
		}
	})
}

// TestRunLateClient: a server waits for a client that has other things to do first, and the connection is SMC-D.
func TestRunLateClient(t *testing.T) {
	d := mountSMC(t)
	d.wantSMC(1, func() { d.run(underRun, filepath.Join(bin, "smc-run-test"), "late") })
	d.WantCount(0)
}
