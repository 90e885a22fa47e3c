// SPDX-License-Identifier: Apache-2.0

package link

import "time"

// traffic knows what a device's connections of late have carried. Without one it is light: many came and went in a row, each with
// little. A new ring of 1 MiB takes both sides 1 ms, one of 64 KiB a third (docs/performance.md). preload/traffic.c does the same.
type traffic struct {
	last time.Time // when the last one ended
	row  int       // how many there were in a row
}

const (
	little     = 64 << 10 // none of them received so much
	lightRow   = 8
	lightPause = 100 * time.Millisecond // between the end of one and of the next
)

// ended takes a connection that has received so many bytes.
func (t *traffic) ended(received uint64, now time.Time) {
	switch {
	case received >= little:
		t.row = 0
	case now.Sub(t.last) >= lightPause:
		t.row = 1
	default:
		t.row++
	}
	t.last = now
}

func (t *traffic) isLight(now time.Time) bool {
	return t.row >= lightRow && now.Sub(t.last) < lightPause
}
