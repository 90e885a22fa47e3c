// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"
)

// A socket that several processes have is in several records.
func TestSum(t *testing.T) {
	var b []byte
	for _, r := range [][2]uint64{{7, 1}, {8, 3}, {7, 1}, {9, 1}} {
		b = binary.NativeEndian.AppendUint64(b, r[0])
		b = binary.NativeEndian.AppendUint64(b, r[1])
	}
	if n := sum(b); n != 5 {
		t.Errorf("%d sockets, want 5", n)
	}
	if n := sum(b[:len(b)-1]); n != 4 {
		t.Errorf("%d sockets in a record less, want 4", n)
	}
	if n := sum(nil); n != 0 {
		t.Errorf("%d sockets in no record", n)
	}
}
