// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunSanitized: the same calls in a program and a library that are built with AddressSanitizer, and with ThreadSanitizer.
func TestRunSanitized(t *testing.T) {
	t.Parallel()
	for sanitizer, options := range map[string]string{
		"address": "ASAN_OPTIONS=detect_leaks=0:exitcode=66",
		// A child of fork can have a thread of its parent's that has ended and that nobody has joined: no leak.
		"thread": "TSAN_OPTIONS=exitcode=66:die_after_fork=0:report_thread_leaks=0",
	} {
		t.Run(sanitizer, func(t *testing.T) {
			t.Parallel() // each with its own mount
			dir := tempDir(t)
			build := exec.Command("make", "-s", "-C", "../preload", "test", "SANITIZE="+sanitizer, "BIN="+dir)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			d := mountSMC(t)
			before := d.xferBytes()
			var out string
			d.wantSMC(-1, func() {
				out = d.run(asItIs, "env", options, filepath.Join(dir, "smc-run-test-"+sanitizer))
			})
			var bytes int64
			if _, err := fmt.Sscanf(out, "bytes %d", &bytes); err != nil {
				t.Fatalf("it prints %q", out)
			}
			if grown := d.xferBytes() - before; grown != bytes {
				t.Errorf("it has written %d bytes, xfer_bytes grew by %d", bytes, grown)
			}
			d.run(asItIs, "env", options, filepath.Join(dir, "smc-run-test-"+sanitizer), "early")
			d.run(asItIs, "env", options, filepath.Join(dir, "smc-run-test-"+sanitizer), "plain")
			d.run(asItIs, "env", options, filepath.Join(dir, "smc-run-parts-"+sanitizer))
			d.WantCount(0)
			d.wantSMC(50, func() { d.run(asItIs, "env", options, filepath.Join(dir, "smc-run-mixed-"+sanitizer), "1000") })
			d.WantCount(0)
			stress := filepath.Join(dir, "smc-run-stress-"+sanitizer)
			for _, mode := range []string{"0", "1"} { // in the second one readers and writers sleep on one bell
				wantError(t, "dmb_copy", d.Write("dmb_copy", mode), nil)
				port := freePort(t)
				server := d.start(asItIs, "env", options, stress, "serve", port)
				listening(t, port)
				d.wantSMC(-1, func() { d.run(asItIs, "env", options, stress, "talk", port, "2000", "8") })
				server.kill()
				d.WantCount(0)
				if out := server.out.String(); strings.Contains(out, "Sanitizer") {
					t.Errorf("the server says\n%s", out)
				}
			}
		})
	}
}
