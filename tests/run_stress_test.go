// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// TestRunStress: 16 threads that connect, talk and close, against a server of threads and children; every byte is compared, and all are
// counted. Then either side is killed in the middle of it, again and again.
func TestRunStress(t *testing.T) {
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		stress := filepath.Join(bin, "smc-run-stress")
		start := func() (port string, server *program) {
			port = freePort(t)
			server = d.start(underRun, stress, "serve", port)
			listening(t, port)
			return port, server
		}
		port, server := start()
		before, held := d.xferBytes(), descriptors(t, server)+1 // and what tells it which of its children live
		var out string
		d.wantSMC(-1, func() { out = d.run(underRun, stress, "talk", port, "3000", "16") })
		var bytes int64
		if _, err := fmt.Sscanf(out, "bytes %d", &bytes); err != nil || bytes == 0 {
			t.Fatalf("it prints %q", out)
		}
		if grown := d.xferBytes() - before; grown != bytes {
			t.Errorf("%d bytes were exchanged, xfer_bytes grew by %d", bytes, grown)
		}
		waitFor(t, "the server to have no more descriptors than it needs", func() error {
			if now := descriptors(t, server); now != held {
				return fmt.Errorf("%d, want %d", now, held)
			}
			return nil
		})
		d.WantCount(0)
		server.kill()
		for round := range 6 {
			port, server := start()
			client := d.start(underRun, stress, "talk", port, "60000", "16")
			waitFor(t, "connections", func() error {
				for _, c := range d.connsTo(port) {
					if c.Mode == tree.ModeSMCD && c.Role == "client" {
						return nil
					}
				}
				return fmt.Errorf("there are none")
			})
			time.Sleep(time.Duration(100+37*round) * time.Millisecond) // in the middle of something, whatever it is
			if round%2 == 0 {
				client.kill()
				server.kill()
			} else {
				server.kill()
				d.wantNoneTo(port) // its clients have ended with an error
				client.kill()
			}
			d.WantCount(0)
		}
	})
}

// descriptors is how many a program has open.
func descriptors(t *testing.T, p *program) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
