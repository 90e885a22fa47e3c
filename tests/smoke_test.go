// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"testing"
)

// TestSharedBytes is the main job: what one process stores, another loads.
func TestSharedBytes(t *testing.T) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t)
	const token, size = "00000000000000a1", 64 << 10
	_, own := owner.Register(d, token, size)
	fd := peer.MustOpen(d.Path("dmbs", token), 2)
	mapped := peer.MustMap(fd, size)
	if err := peer.Store(mapped, []byte("through shared memory"), 32); err != nil {
		t.Fatal(err)
	}
	got, err := owner.Load(own, 21, 32)
	if err != nil || !bytes.Equal(got, []byte("through shared memory")) {
		t.Fatalf("the owner reads %q, %v", got, err)
	}
	d.WantCount(1)
	owner.Kill()
	peer.Kill()
	d.WantCount(0)
}
