// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets that are 1/128 of their power of two wide: a percentile is wrong by less than half a
// percent. Counting allocates nothing and touches one word.
type histogram struct {
	buckets [(64 - histogramBits) << histogramBits]uint32
	count   uint64
	least   time.Duration
	most    time.Duration
}

const histogramBits = 7

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	if h.count == 0 || d < h.least {
		h.least = d
	}
	h.most = max(h.most, d)
	h.count++
	h.buckets[bucketOf(d)]++
}

func bucketOf(d time.Duration) int {
	v := uint64(d)
	shift := bits.Len64(v >> (histogramBits + 1))
	return shift<<histogramBits + int(v>>shift)
}

// middleOf returns the middle of a bucket.
func middleOf(bucket int) time.Duration {
	shift := max(bucket>>histogramBits-1, 0)
	low := uint64(bucket-shift<<histogramBits) << shift
	return time.Duration(low + (1<<shift)/2)
}

// percentile returns the duration that p percent of all do not exceed; 0 without any.
func (h *histogram) percentile(p float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := max(uint64(p/100*float64(h.count)+0.5), 1)
	var seen uint64
	for i, n := range h.buckets {
		if seen += uint64(n); seen >= rank {
			return min(max(middleOf(i), h.least), h.most)
		}
	}
	return h.most
}

// reset forgets everything.
func (h *histogram) reset() { *h = histogram{} }

// percentiles puts what rows show of a latency into figures, in microseconds.
func (h *histogram) percentiles(f figures) {
	if h.count == 0 {
		return
	}
	for name, p := range map[string]float64{"p50_us": 50, "p90_us": 90, "p99_us": 99, "p999_us": 99.9} {
		f[name] = micros(h.percentile(p))
	}
	f["min_us"], f["max_us"], f["samples"] = micros(h.least), micros(h.most), float64(h.count)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
