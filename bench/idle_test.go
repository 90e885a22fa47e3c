// SPDX-License-Identifier: Apache-2.0

package bench

import "testing"

// All idle connections are somewhere, and no pair has more than it may: each has one more, for ping-pong, which is idle in all
// pairs but the first.
func TestShared(t *testing.T) {
	for _, c := range []struct{ n, most, pairs int }{{1, 1, 1}, {100, 100, 1}, {101, 100, 2}, {10000, 6599, 2}, {7, 2, 4}} {
		shares := shared(c.n, c.most)
		sum := len(shares) - 1
		for _, n := range shares {
			sum += n
			if n > c.most {
				t.Errorf("%d at most %d: %v", c.n, c.most, shares)
			}
		}
		if sum != c.n || len(shares) != c.pairs {
			t.Errorf("%d at most %d: %v", c.n, c.most, shares)
		}
	}
}
