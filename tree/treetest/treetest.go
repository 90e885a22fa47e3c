// SPDX-License-Identifier: Apache-2.0

// Package treetest makes trees of ordinary files that read as a freshly mounted ismfs does, for tests of programs that use
// package tree. There is no device behind them: a control keeps what is written to it.
package treetest

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// GID is the GID of every fake device.
const GID = "6f1c2d3e-4a5b-4c6d-8e7f-90a1b2c3d4e5"

// Files returns what the files of a fresh device hold, by their names.
func Files() map[string]string {
	return map[string]string{
		"gid":        GID + "\n",
		"chid":       "ffff\n",
		"active":     "1\n",
		"dmb_type":   "0: Physically contiguous buffer\n",
		"dmb_copy":   "0: sndbuf and DMB merged and no data copied\n",
		"xfer_bytes": "0\n",
		"dmbs_cnt":   "0\n",
		"ueid":       "ISMFS-DEFAULT-UEID\n",
		"conns":      "",
		"linkgroups": "",
		"stats":      stats,
	}
}

const stats = `{
  "SMCD": {"SMC_RX_BYTES": 0, "SMC_TX_BYTES": 0},
  "handshake": {"client_errors": 0, "server_errors": 0, "client_fallback": {}, "server_fallback": {}},
  "device": {
    "version": "fake", "pid": 1, "uptime_seconds": 5, "state": "active", "epoch": 1,
    "max_dmbs": 5000, "max_dmb_size": 16777216,
    "max_bytes": 1073741824, "max_bytes_per_uid": 536870912, "max_dmbs_per_uid": 2500,
    "dmbs": 0, "bytes": 0, "processes": [], "liars": []
  }
}
`

// New makes a fake tree in a temporary directory and returns its mount point. Each of changed replaces a file of [Files].
func New(t testing.TB, changed map[string]string) string {
	t.Helper()
	point := t.TempDir()
	dir := filepath.Join(point, "devices", "loopback-ism")
	for _, name := range []string{"dmbs", "bells", "procs"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := Files()
	maps.Copy(files, changed)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return point
}
