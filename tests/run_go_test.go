// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestRunGo: a Go program with libsmc on one side and a C program on the other, each way; 16 MB each way with a checksum.
func TestRunGo(t *testing.T) {
	need(t, "socat")
	d := mountSMC(t)
	peer := startPeer(t, d.Point)

	port := freePort(t)
	d.start(underRun, "socat", "TCP-LISTEN:"+port+",bind=127.0.0.1,fork", "EXEC:cat")
	listening(t, port)
	for range 3 { // the second and third in the same link group
		d.wantSMC(1, func() {
			c := peer.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
			d.wantGrowth(32<<20, func() { echoed(c, 16<<20) })
			d.wantBothEnds(port, 1)
			c.Close()
		})
		d.wantNoneTo(port)
	}

	l := peer.Listen(overSMC, "tcp", "127.0.0.1:0")
	l.Echo()
	_, goPort, _ := strings.Cut(l.Address, ":")
	path, contents := bigFile(t, tempDir(t), 16<<20)
	got := filepath.Join(tempDir(t), "got")
	for range 3 {
		d.wantGrowth(32<<20, func() {
			d.wantSMC(1, func() { d.run(underRun, "sh", "-c", "socat -t 10 - TCP:127.0.0.1:"+goPort+" < "+path+" > "+got) })
		})
		wantFile(t, got, contents)
	}
}

// echoed sends n bytes that come back.
func echoed(c *peerConn, n int64) {
	c.t.Helper()
	seed := seeds.Add(1)
	sent := later(func() (string, error) { return c.Send(seed, n, 64<<10) })
	got, errRead := c.Receive(seed+1<<32, n, 64<<10)
	want, errWrite := sent()
	if errRead != nil || errWrite != nil || got != want {
		c.t.Fatalf("echo of %d bytes: %v, %v, checksums %s and %s", n, errWrite, errRead, want, got)
	}
}
