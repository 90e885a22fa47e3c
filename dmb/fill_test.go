// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestFill: every byte arrives, and none beside them, wherever the two begin.
func TestFill(t *testing.T) {
	const margin = 256
	random := rand.NewChaCha8([32]byte{1})
	for _, n := range []int{0, 1, 63, 2047, 2048, 2049, 4096, 5000, 64 << 10} {
		for _, at := range []struct{ dst, src int }{{0, 0}, {44, 0}, {64, 64}, {1, 63}, {63, 1}, {100, 4096 + 100}, {17, 5}} {
			t.Run(fmt.Sprintf("%d bytes from %d to %d", n, at.src, at.dst), func(t *testing.T) {
				src := make([]byte, at.src+n)
				random.Read(src)
				got := bytes.Repeat([]byte{0xee}, at.dst+n+margin)
				want := bytes.Clone(got)
				copy(want[at.dst:], src[at.src:])
				fill(got[at.dst:][:n], src[at.src:])
				if !bytes.Equal(got, want) {
					t.Error("not the same bytes")
				}
			})
		}
	}
}
