// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

// sweptResult has both sweeps in two placements: SMC faster with larger messages, and a transport with a name that XML minds.
func sweptResult() *Result {
	r := &Result{Version: `<v1 & "co">`, Machine: machine{CPU: "CPU <&>", Kernel: "6.18"}}
	for _, place := range []string{twoCPUs, free} {
		for _, w := range sweeps {
			for i, size := range sweepSizes {
				row := RowResult{Name: w.prefix() + "x", Placement: place, Size: size, Figure: w.figure, sweep: true}
				for j, name := range []string{"smc", "tcp", "<&"} {
					v := float64((i + 1) * (j + 1))
					row.Transports = append(row.Transports, TransportResult{Name: name, Rounds: []figures{{w.figure: v}, {w.figure: 2 * v}}})
				}
				row.summarize(baseline)
				r.Rows = append(r.Rows, row)
			}
		}
	}
	return r
}

func TestPlot(t *testing.T) {
	var b bytes.Buffer
	if err := sweptResult().WritePlot(&b); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	var text strings.Builder
	for dec := xml.NewDecoder(&b); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal("not well-formed: ", err)
		}
		switch v := token.(type) {
		case xml.StartElement:
			counts[v.Name.Local]++
			checkNumbers(t, v)
		case xml.CharData:
			text.Write(v)
		}
	}
	const panels, transports = 4, 3
	if counts["svg"] != 1 || counts["polyline"] != panels*transports {
		t.Errorf("elements: %v", counts)
	}
	if want := panels*transports*len(sweepSizes) + transports; counts["circle"] != want {
		t.Errorf("%d circles, want one for each point and one in the legend for each transport, %d", counts["circle"], want)
	}
	for _, want := range []string{"round trip, median, µs, two CPUs", "one way, MB/s, free", "1 MiB", `<v1 & "co">`, "<&"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the plot does not say %q", want)
		}
	}
}

// checkNumbers looks for coordinates that a viewer would stumble over.
func checkNumbers(t *testing.T, e xml.StartElement) {
	for _, a := range e.Attr {
		if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
			t.Errorf("%s: %s is %s", e.Name.Local, a.Name.Local, a.Value)
		}
	}
}

func TestPlotOfNothing(t *testing.T) {
	if err := new(Result).WritePlot(io.Discard); !errors.Is(err, ErrNoPlot) {
		t.Error(err)
	}
	r := sweptResult()
	for i := range r.Rows { // every cell failed
		for j := range r.Rows[i].Transports {
			r.Rows[i].Transports[j].Summary = nil
		}
	}
	var b bytes.Buffer
	if err := r.WritePlot(&b); err != nil || !strings.Contains(b.String(), "nothing measured") {
		t.Errorf("%v\n%s", err, &b)
	}
}

func TestAxis(t *testing.T) {
	for _, c := range []struct {
		values []float64
		ticks  []float64
	}{
		{[]float64{3, 40}, []float64{2, 5, 10, 20, 50}},
		{[]float64{1, 10}, []float64{1, 2, 5, 10}},
		{[]float64{0.03, 0.2}, []float64{0.02, 0.05, 0.1, 0.2}},
		{[]float64{700}, []float64{500, 1000}},
	} {
		a := newAxis(c.values, 100, 0)
		got := a.ticks()
		if !slices.EqualFunc(got, c.ticks, func(x, y float64) bool { return math.Abs(x/y-1) < 1e-6 }) {
			t.Errorf("%v: ticks %v, want %v", c.values, got, c.ticks)
		}
		if math.Abs(a.at(got[0])-100) > 1e-6 || math.Abs(a.at(got[len(got)-1])) > 1e-6 {
			t.Errorf("%v: the ends are not at the ends: %v, %v", c.values, a.at(got[0]), a.at(got[len(got)-1]))
		}
	}
	a := axis{1, 100, 0, 200}
	if math.Abs(a.at(10)-100) > 1e-9 {
		t.Errorf("10 is at %v between 1 at 0 and 100 at 200", a.at(10))
	}
}
