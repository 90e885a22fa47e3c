// SPDX-License-Identifier: Apache-2.0

//go:build linux

package libsmc_test

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/tree"
)

// TestNetTest is the conformance test of package net's connections. What every pair has moved is in xfer_bytes, exactly.
func TestNetTest(t *testing.T) {
	waiting := []way{
		{"merged, busy", libsmc.SMCD, tree.Merged, "127.0.0.1:0", libsmc.WaitBusy},
		{"merged, blocking", libsmc.SMCD, tree.Merged, "127.0.0.1:0", libsmc.WaitBlocking},
		{"copied, busy", libsmc.SMCD, tree.Separated, "127.0.0.1:0", libsmc.WaitBusy},
		{"copied, blocking", libsmc.SMCD, tree.Separated, "127.0.0.1:0", libsmc.WaitBlocking},
	}
	for _, w := range append(ways(), waiting...) {
		t.Run(w.name, func(t *testing.T) {
			w.set(t)
			before := xferBytes(t)
			var pairs []*libsmc.Conn
			run := func(t *testing.T) {
				nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
					a, b, err := w.pair()
					if err != nil {
						return nil, nil, nil, err
					}
					pairs = append(pairs, a, b)
					return a, b, func() { a.Close(); b.Close() }, nil
				})
			}
			run(t)
			t.Run("one processor", func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
				run(t)
			})
			written := uint64(0)
			for _, c := range pairs {
				written += c.Info().BytesWritten
			}
			if n := xferBytes(t) - before; n != written || (n == 0) != (w.mode == libsmc.TCP) {
				t.Errorf("xfer_bytes grew by %d, %d were written", n, written)
			}
		})
	}
}

func xferBytes(t *testing.T) uint64 {
	t.Helper()
	n, err := device(t).XferBytes()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
