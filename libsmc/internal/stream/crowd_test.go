// SPDX-License-Identifier: Apache-2.0

package stream

import "testing"

func TestCrowdCounts(t *testing.T) {
	var c crowd
	for _, step := range []struct {
		period uint32
		want   uint16
	}{
		{7, 1}, {7, 2}, {7, 3}, // three in a period
		{8, 3}, {8, 3}, {8, 3}, {8, 4}, // the last one counts still
		{9, 4}, {11, 1}, // one without anybody is forgotten
		{10, 1}, // a clock that was read before
	} {
		if got := c.count(step.period); got != step.want {
			t.Errorf("in period %d: %d, want %d", step.period, got, step.want)
		}
	}
	if got := c.most(11); got != 1 {
		t.Errorf("most: %d, want 1", got)
	}
}

// Connections that come one after the other are alone; those that are there at once are not.
func TestCrowded(t *testing.T) {
	p := &Pages{alone: mostAlone}
	p.period.Store(5) // the dispatcher works
	for range 3 {
		c := new(Conn)
		for range 2 {
			if p.crowded(c, Adaptive) {
				t.Fatal("a lone connection is a crowd")
			}
		}
		p.left(c)
	}
	c1, c2 := new(Conn), new(Conn)
	if p.crowded(c1, Adaptive) || !p.crowded(c2, Adaptive) || !p.crowded(c1, Adaptive) {
		t.Error("two connections are no crowd")
	}
}
