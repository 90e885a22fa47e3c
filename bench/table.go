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

// waiting is how libsmc's connections wait unless a program says otherwise.
const waiting = "adaptive"

// WriteTable writes the result for people.
func (r *Result) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d × %s, %.0f GiB, Linux %s, ismfs %s\n", r.Date.Format("2006-01-02 15:04"),
		r.Machine.CPUs, r.Machine.CPU, float64(r.Machine.Memory)/(1<<30), r.Machine.Kernel, r.Version)
	fmt.Fprintf(w, "Medians (min–max) of %d rounds of %.3g s; ratios to TCP are taken in each round. client|server\n",
		r.Parameters.Rounds, r.Parameters.Seconds)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", note)
	}
	title := ""
	for _, row := range r.Rows {
		if row.Title != title {
			title = row.Title
			fmt.Fprintf(w, "\n%s: %s\n", row.Name, title)
		}
		if err := row.write(w); err != nil {
			return err
		}
	}
	return nil
}

func (r *RowResult) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "%s\ttransport", r.Placement)
	for i, c := range r.columns {
		fmt.Fprintf(tw, "\t%s", c.head)
		if i == 0 {
			fmt.Fprint(tw, "\tto TCP")
		}
	}
	fmt.Fprintln(tw)
	for _, t := range r.Transports {
		fmt.Fprintf(tw, "\t%s", t.label())
		if t.Error != "" {
			fmt.Fprintf(tw, "\tfailed: %s\n", strings.Join(strings.Fields(t.Error), " "))
			continue
		}
		for i, c := range r.columns {
			fmt.Fprintf(tw, "\t%s", c.text(t.Summary))
			if i == 0 {
				fmt.Fprintf(tw, "\t%s", t.ratioText())
			}
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// label is the transport's name, for SMC with how it waits and its ring.
func (t *TransportResult) label() string {
	if !t.transport.SMC || t.Buffer == 0 {
		return t.Name
	}
	return fmt.Sprintf("%s (%s, %s)", t.Name, waiting, sizeText(t.Buffer+smc.CDCLen))
}

func (t *TransportResult) ratioText() string {
	switch {
	case t.Name == baseline:
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
