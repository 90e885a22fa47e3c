// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{0, 1, 127, 128, 255, 256, 257, 258, 511, 512, 1000, 1 << 20, 1<<40 + 1, math.MaxInt64} {
		b := bucketOf(d)
		if b < last || b >= len(new(histogram).buckets) {
			t.Errorf("bucket %d of %d: buckets must grow from 0 to %d", b, d, len(new(histogram).buckets)-1)
		}
		if off := math.Abs(float64(middleOf(b) - d)); off > float64(d)/200 {
			t.Errorf("%d is counted as %d", d, middleOf(b))
		}
		last = b
	}
}

func TestPercentiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 10000 {
		d := time.Duration(math.Exp(r.Float64()*20) + 0.5)
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, p := range []float64{0, 1, 50, 90, 99, 99.9, 100} {
		want := all[max(int(p/100*float64(len(all))+0.5)-1, 0)]
		if got := h.percentile(p); math.Abs(float64(got-want)) > float64(want)/200+1 {
			t.Errorf("percentile %v is %v, want %v", p, got, want)
		}
	}
	f := figures{}
	h.percentiles(f)
	if f["samples"] != 10000 || f["min_us"] != micros(all[0]) || f["max_us"] != micros(all[9999]) {
		t.Errorf("figures %v", f)
	}
}

func TestPercentileOfOne(t *testing.T) {
	var h histogram
	h.add(12345)
	for _, p := range []float64{0, 50, 100} {
		if got := h.percentile(p); got != 12345 {
			t.Errorf("percentile %v of one duration of 12345 is %d", p, got)
		}
	}
}

func TestNothingMeasured(t *testing.T) {
	var h histogram
	f := figures{}
	if h.percentiles(f); len(f) != 0 || h.percentile(50) != 0 {
		t.Errorf("an empty histogram has figures: %v", f)
	}
	h.add(-1)
	if h.percentile(50) != 0 || h.count != 1 {
		t.Error("a clock that went back counts as 0")
	}
	if h.reset(); h != (histogram{}) {
		t.Error("reset leaves something")
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	var h histogram
	if n := testing.AllocsPerRun(100, func() { h.add(time.Microsecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
