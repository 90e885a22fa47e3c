// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"maps"
	"slices"
)

// A summary is the median of some rounds, with the least and the greatest.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// summarize returns the summary of at least one sample.
func summarize(samples []float64) summary {
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	return summary{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1], Rounds: n}
}

// figures are what one cell measured, by name; the unit is the name's end.
type figures map[string]float64

// merged returns the figures of both.
func merged(a, b figures) figures {
	all := make(figures, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// summarizeAll summarizes each figure over the rounds that have it.
func summarizeAll(rounds []figures) map[string]summary {
	samples := make(map[string][]float64)
	for _, f := range rounds {
		for name, v := range f {
			samples[name] = append(samples[name], v)
		}
	}
	all := make(map[string]summary, len(samples))
	for name, s := range samples {
		all[name] = summarize(s)
	}
	return all
}

// ratios returns one figure's ratio to the same round's of another transport, for the rounds in which both have it.
func ratios(name string, of, to []figures) []float64 {
	var r []float64
	for i := range min(len(of), len(to)) {
		a, ok := of[i][name]
		b, both := to[i][name]
		if ok && both && b != 0 {
			r = append(r, a/b)
		}
	}
	return r
}
