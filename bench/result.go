// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

// A Result is what a run has found: the JSON of `ismfs bench`.
type Result struct {
	Version    string      `json:"version"`
	Date       time.Time   `json:"date"`
	Machine    machine     `json:"machine"`
	Parameters parameters  `json:"parameters"`
	Device     *deviceInfo `json:"device,omitempty"` // nil: without SMC
	Notes      []string    `json:"notes"`
	Rows       []RowResult `json:"rows"`
}

type parameters struct {
	Rows       string      `json:"rows"`
	Rounds     int         `json:"rounds"`
	Seconds    float64     `json:"seconds"` // of each cell
	Placements []placement `json:"placements"`
	Buffer     int         `json:"buffer"` // 0: libsmc's default
}

// A RowResult is one row in one placement.
type RowResult struct {
	Command    string            `json:"command"`
	Name       string            `json:"name"`
	Title      string            `json:"title"`
	Placement  string            `json:"placement"`
	Size       int               `json:"size"`
	Conns      int               `json:"conns"`
	Figure     string            `json:"figure"`   // what the row is about, and ratios are of
	Baseline   string            `json:"baseline"` // the transport to which ratios are
	Transports []TransportResult `json:"transports"`

	columns []column
	sweep   bool
}

// A TransportResult is one transport in a row.
type TransportResult struct {
	Name    string             `json:"name"`
	Waiting string             `json:"waiting,omitempty"` // how an SMC connection waits
	Buffer  int                `json:"buffer"`            // ring of an SMC connection
	Page    int64              `json:"page,omitempty"`    // size of its pages, if the transport asks for some
	SMC     int                `json:"smc"`               // connections of the client that were SMC-D, in all rounds
	TCP     int                `json:"tcp"`               // and those that were not: of SMC, or sockets of another kind
	Error   string             `json:"error,omitempty"`
	Rounds  []figures          `json:"rounds"`
	Summary map[string]summary `json:"summary"`
	Ratio   *summary           `json:"ratio,omitempty"` // of the row's figure to the baseline's, taken round by round

	transport transport
}

// Failed counts the cells without figures.
func (r *Result) Failed() int {
	n := 0
	for _, row := range r.Rows {
		for _, t := range row.Transports {
			if t.Error != "" {
				n++
			}
		}
	}
	return n
}

// add notes what a cell's client has seen.
func (t *TransportResult) add(client report) {
	t.Buffer, t.Waiting, t.Page = client.Buffer, client.Waiting, client.PageSize
	t.SMC += client.SMC
	t.TCP += client.TCP
}

// otherWait returns what is to be noted if the connections did not wait as their transport's name says; empty: they did.
func (t *TransportResult) otherWait() string {
	want := t.transport.Wait
	if want == libsmc.WaitDefault || t.Waiting == "" || t.Waiting == want.String() {
		return ""
	}
	return fmt.Sprintf("%s waits in the way %s: the device's mount allows no %s (--wait)", t.Name, t.Waiting, want)
}

// summarize fills in what follows from the rounds. Ratios are to the transport of the name baseline.
func (r *RowResult) summarize(baseline string) {
	r.Baseline = baseline
	var base []figures
	for _, t := range r.Transports {
		if t.Name == baseline {
			base = t.Rounds
		}
	}
	for i := range r.Transports {
		t := &r.Transports[i]
		t.Summary = summarizeAll(t.Rounds)
		if samples := ratios(r.Figure, t.Rounds, base); len(samples) > 0 && t.Name != baseline {
			ratio := summarize(samples)
			t.Ratio = &ratio
		}
	}
}
