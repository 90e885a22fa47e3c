// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"strconv"
)

// An axis maps numbers to pixels, logarithmically.
type axis struct {
	low, high float64 // numbers
	from, to  float64 // pixels
}

// newAxis returns an axis on which all values lie, from one of its ticks to another.
func newAxis(values []float64, from, to float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	return axis{tickBelow(low), tickAbove(high), from, to}
}

func (a axis) at(v float64) float64 {
	if a.high == a.low {
		return (a.from + a.to) / 2
	}
	return a.from + (a.to-a.from)*math.Log(v/a.low)/math.Log(a.high/a.low)
}

// ticks returns 1, 2, 5, 10, … as far as the axis goes.
func (a axis) ticks() []float64 {
	var all []float64
	for v := a.low; v <= a.high*1.001; v = nextTick(v) {
		all = append(all, v)
	}
	return all
}

// mantissas of ticks, and the first of the next decade.
var mantissas = []float64{1, 2, 5, 10}

func nextTick(v float64) float64 {
	decade := math.Pow(10, math.Floor(math.Log10(v)+1e-9))
	for _, m := range mantissas {
		if m*decade > v*1.001 {
			return m * decade
		}
	}
	return 10 * decade
}

func tickBelow(v float64) float64 {
	tick := math.Pow(10, math.Floor(math.Log10(v)))
	for next := nextTick(tick); next <= v; next = nextTick(next) {
		tick = next
	}
	return tick
}

func tickAbove(v float64) float64 {
	tick := tickBelow(v)
	if tick < v {
		tick = nextTick(tick)
	}
	return tick
}

// tickText writes a tick's number, with k for thousands.
func tickText(v float64) string {
	if v >= 1e4 {
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
