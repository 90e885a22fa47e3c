// SPDX-License-Identifier: Apache-2.0

package dmb

import "testing"

// What stands in for a DMB takes every write, and has nobody.
func TestStandIn(t *testing.T) {
	const size = 16 << 10
	a, err := StandIn(size)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Mapped() || a.Size() != size || a.Token() != 0 || a.Owner() != 0 {
		t.Errorf("mapped %v, %d bytes, token %v of process %d", a.Mapped(), a.Size(), a.Token(), a.Owner())
	}
	ring := len(a.Ring())
	for what, err := range map[string]error{
		"Put":           a.Put([]byte("x"), ring-1),
		"StoreProducer": a.StoreProducer(1),
		"StoreConsumer": a.StoreConsumer(1),
		"StoreWaiting":  a.StoreWaiting(Reader, OnFutex),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	a.Wake()
	if n, err := a.Links(); err == nil {
		t.Errorf("it has %d links", n)
	}
	if err := a.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
