// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"testing"
	"time"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		want    summary
	}{
		{[]float64{3}, summary{3, 3, 3, 1}},
		{[]float64{9, 1}, summary{5, 1, 9, 2}},
		{[]float64{5, 1, 3}, summary{3, 1, 5, 3}},
		{[]float64{8, 2, 4, 1}, summary{3, 1, 8, 4}},
	} {
		before := slices.Clone(c.samples)
		if got := summarize(c.samples); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.samples, got, c.want)
		}
		if !slices.Equal(before, c.samples) {
			t.Errorf("%v was changed to %v", before, c.samples)
		}
	}
}

// Ratios are of one round each: a slow round of both sides must not show.
func TestRatios(t *testing.T) {
	of := []figures{{"x": 1}, {"x": 10}, {}, {"x": 5}, {"x": 7}}
	to := []figures{{"x": 2}, {"x": 20}, {"x": 1}, {"x": 0}}
	if got := ratios("x", of, to); !slices.Equal(got, []float64{0.5, 0.5}) {
		t.Errorf("%v", got)
	}
	if got := ratios("y", of, to); got != nil {
		t.Errorf("ratios of a figure that is nowhere: %v", got)
	}
}

func TestSummarizeAll(t *testing.T) {
	all := summarizeAll([]figures{{"a": 1, "b": 2}, {"a": 3}})
	if len(all) != 2 || all["a"] != (summary{2, 1, 3, 2}) || all["b"] != (summary{2, 2, 2, 1}) {
		t.Errorf("%v", all)
	}
}

func TestRowSummary(t *testing.T) {
	r := RowResult{Figure: "us", Transports: []TransportResult{
		{Name: "smc", Rounds: []figures{{"us": 1}, {"us": 4}}},
		{Name: "tcp", Rounds: []figures{{"us": 10}, {"us": 8}}},
		{Name: "unix", Error: "broken"},
	}}
	r.summarize("tcp")
	smc, tcp, unix := r.Transports[0], r.Transports[1], r.Transports[2]
	if smc.Ratio == nil || *smc.Ratio != (summary{0.3, 0.1, 0.5, 2}) {
		t.Errorf("smc to tcp: %+v", smc.Ratio)
	}
	if tcp.Ratio != nil || unix.Ratio != nil {
		t.Errorf("ratios of the baseline and of what has no figures: %v, %v", tcp.Ratio, unix.Ratio)
	}
	if smc.Summary["us"].Median != 2.5 || r.Baseline != "tcp" {
		t.Errorf("%+v", r)
	}
}

func TestUsage(t *testing.T) {
	before := usage{time.Second, time.Second, 10, 1}
	f := figures{}
	usage{3 * time.Second, 2 * time.Second, 30, 5}.since(before).per("client", 100, 2e9, f)
	for name, want := range map[string]float64{
		"client_cpu_us_per_op": 10000, "client_voluntary_per_op": 0.2, "client_involuntary_per_op": 0.04,
		"client_cpu_s_per_gb": 0.5, "client_voluntary_per_gb": 10, "client_involuntary_per_gb": 2, "client_cpu_percent": 50,
	} {
		if f[name] != want {
			t.Errorf("%s is %v, want %v", name, f[name], want)
		}
	}
	if u, err := usageNow(); err != nil || u.At <= 0 || u.CPU <= 0 {
		t.Errorf("this process has used %+v, %v", u, err)
	}
}
