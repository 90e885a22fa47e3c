// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// TestNetTest is the conformance test of package net's connections, also with rings that wrap all the time.
func TestNetTest(t *testing.T) {
	for _, size := range []int{4096 * 2, 64 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			inModes(t, func(t *testing.T, d *daemon) {
				nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
					c1, c2, err := d.pair(size)
					return c1, c2, func() { c1.Close(); c2.Close() }, err
				})
			})
		})
	}
}
