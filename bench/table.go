// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ismfs/ismfs/smc"
)

// WriteTable writes the result for people.
func (r *Result) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d × %s, %.0f GiB, Linux %s, ismfs %s\n", r.Date.Format("2006-01-02 15:04"),
		r.Machine.CPUs, r.Machine.CPU, float64(r.Machine.Memory)/(1<<30), r.Machine.Kernel, r.Version)
	fmt.Fprintf(w, "Medians (min–max) of %d rounds of %.3g s. Ratios are to TCP, taken in each round. What both sides use stands as client|server.\n",
		r.Parameters.Rounds, r.Parameters.Seconds)
	if d := r.Device; d != nil {
		fmt.Fprintf(w, "Device: %s%s, --max-dmbs %d, dmb_type %d\n", d.Point, map[bool]string{true: ", mounted for this run"}[d.Own], d.MaxDMBs, d.DMBType)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", note)
	}
	for rows := r.Rows; len(rows) > 0; {
		n := 1
		for n < len(rows) && rows[n].Name == rows[0].Name {
			n++
		}
		if rows[0].sweep {
			rows = rows[n:]
			continue
		}
		if err := writeRow(w, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// writeRow writes one row in all its placements.
func writeRow(w io.Writer, placements []RowResult) error {
	fmt.Fprintf(w, "\n%s: %s\n", placements[0].Name, placements[0].Title)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(tw, "placement\ttransport")
	for i, c := range placements[0].columns {
		fmt.Fprintf(tw, "\t%s", c.head)
		if i == 0 {
			fmt.Fprint(tw, "\tratio")
		}
	}
	fmt.Fprintln(tw)
	for _, r := range placements {
		place := r.Placement
		for _, t := range r.Transports {
			fmt.Fprintf(tw, "%s\t%s", place, t.label())
			place = ""
			r.writeFigures(tw, &t)
		}
	}
	return tw.Flush()
}

func (r *RowResult) writeFigures(w io.Writer, t *TransportResult) {
	if t.Error != "" {
		fmt.Fprintf(w, "\tfailed: %s\n", strings.Join(strings.Fields(t.Error), " "))
		return
	}
	for i, c := range r.columns {
		fmt.Fprintf(w, "\t%s", c.text(t.Summary))
		if i == 0 {
			fmt.Fprintf(w, "\t%s", r.ratioText(t))
		}
	}
	fmt.Fprintln(w)
}

// label is the transport's name, for SMC with how it waits, its ring and, where they are the matter, its pages.
func (t *TransportResult) label() string {
	if t.Waiting == "" || t.Buffer == 0 {
		return t.Name
	}
	size := sizeText(t.Buffer + smc.CDCLen)
	if t.Page != 0 {
		size += " of " + sizeText(int(t.Page))
	}
	return fmt.Sprintf("%s (%s, %s)", t.Name, t.Waiting, size)
}

func (r *RowResult) ratioText(t *TransportResult) string {
	switch {
	case t.Name == r.Baseline:
		return "1"
	case t.Ratio == nil:
		return "–"
	}
	return t.Ratio.text(2)
}

// text is a column's cell.
func (c column) text(all map[string]summary) string {
	s, ok := all[c.figure]
	if !ok {
		return "–"
	}
	if c.spread {
		return s.text(c.digits)
	}
	text := number(s.Median, c.digits)
	if second, ok := all[c.second]; ok {
		text += "|" + number(second.Median, c.digits)
	}
	return text
}

func (s summary) text(digits int) string {
	return fmt.Sprintf("%s (%s–%s)", number(s.Median, digits), number(s.Min, digits), number(s.Max, digits))
}

// number writes a figure with so many digits behind the point.
func number(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
