// SPDX-License-Identifier: Apache-2.0

package link

import (
	"testing"
	"time"
)

func TestTraffic(t *testing.T) {
	var tr traffic
	now := time.Now()
	row := func(n int, received uint64, pause time.Duration) bool {
		for range n {
			now = now.Add(pause)
			tr.ended(received, now)
		}
		return tr.isLight(now)
	}
	for _, step := range []struct {
		n        int
		received uint64
		pause    time.Duration
		light    bool
	}{
		{lightRow - 1, little - 1, time.Millisecond, false},
		{1, 0, lightPause - 1, true},
		{1, little, time.Millisecond, false},
		{lightRow, 0, lightPause - 1, true},
		{1, 0, lightPause, false},
		{lightRow - 2, 0, 0, false},
		{1, 0, 0, true},
	} {
		if got := row(step.n, step.received, step.pause); got != step.light {
			t.Errorf("after %+v it is light: %v", step, got)
		}
	}
	if now = now.Add(lightPause); tr.isLight(now) {
		t.Error("it is light after a pause")
	}
}
