// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// sweepSizes are the message sizes of the plot.
var sweepSizes = []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

// A sweep is a figure over the size of messages: a column of the plot.
type sweep struct {
	command  string
	activity string
	figure   string
	title    string
}

var sweeps = []sweep{
	{"latency", "pingpong", "p50_us", "round trip, median, µs"},
	{"bandwidth", "flow", "mb_per_s", "one way, MB/s"},
}

func (w sweep) prefix() string { return "sweep-" + w.command + "-" }

// sweepRows returns the rows that the plot is drawn from. They are not in the table.
func (s *settings) sweepRows() []row {
	if !s.Sweep {
		return nil
	}
	var rows []row
	for _, w := range sweeps {
		for _, size := range s.sizesOr(sweepSizes...) {
			rows = append(rows, row{
				command: w.command, name: fmt.Sprintf("%s%d", w.prefix(), size), title: sizeText(size) + ", " + w.title,
				task:       task{Activity: w.activity, Size: size, Duration: s.Duration},
				transports: s.choose("smc", "smc-copy", "tcp", "unix"),
				columns:    []column{{figure: w.figure}},
				sweep:      true,
			})
		}
	}
	return rows
}

// ErrNoPlot is what WritePlot says of a result without sweeps.
var ErrNoPlot = errors.New("nothing was measured that could be plotted")

// Sizes of a panel and what is around it, in pixels.
const (
	panelWidth, panelHeight           = 400, 260
	marginLeft, marginRight           = 70, 20
	marginTop, marginBottom           = 40, 60
	headHeight                        = 50
	cellWidth, cellHeight             = marginLeft + panelWidth + marginRight, marginTop + panelHeight + marginBottom
	gridStyle                         = `stroke="#dddddd"`
	frameStyle                        = `fill="none" stroke="#444444"`
	plain                             = `fill="#222222"`
	small                             = `fill="#222222" font-size="10"`
	bold                              = `fill="#222222" font-weight="bold"`
	markRadius, rangeWidth, lineWidth = 3, 1, 1.8
)

// palette is told apart by the colour-blind, too.
var palette = []string{"#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#000000"}

// WritePlot draws latency and bandwidth over the size of messages as SVG, a row of panels for each placement. The result must
// be of a run with Options.Sweep.
func (r *Result) WritePlot(w io.Writer) error {
	var places, names []string
	var columns []sweep
	for _, row := range r.Rows {
		i := slices.IndexFunc(sweeps, func(s sweep) bool { return strings.HasPrefix(row.Name, s.prefix()) })
		if i < 0 {
			continue
		}
		columns = appendNew(columns, sweeps[i])
		places = appendNew(places, row.Placement)
		for _, t := range row.Transports {
			names = appendNew(names, t.Name)
		}
	}
	if len(columns) == 0 {
		return ErrNoPlot
	}
	d := &svg{width: max(len(columns), 2) * cellWidth, height: headHeight + len(places)*cellHeight}
	d.text(marginLeft, 20, "start", bold, fmt.Sprintf("ismfs %s, %s, %d × %s, Linux %s", r.Version, r.Date.Format("2006-01-02"),
		r.Machine.CPUs, r.Machine.CPU, r.Machine.Kernel))
	d.legend(names)
	for i, place := range places {
		for j, column := range columns {
			p := panel{svg: d, left: float64(j*cellWidth + marginLeft), top: float64(headHeight + i*cellHeight + marginTop)}
			p.draw(column.title+", "+place, r.series(column, place, names))
		}
	}
	return d.writeTo(w, "Latency and bandwidth over message size")
}

func appendNew[T comparable](all []T, v T) []T {
	if slices.Contains(all, v) {
		return all
	}
	return append(all, v)
}

func (d *svg) legend(names []string) {
	x := float64(marginLeft)
	for i, name := range names {
		d.line(x, 40, x+24, 40, stroke(i, lineWidth))
		d.circle(x+12, 40, markRadius, fill(i))
		d.text(x+30, 44, "start", plain, name)
		x += 50 + 8*float64(len(name))
	}
	d.text(x, 44, "start", small, "median, and from least to greatest of the rounds")
}

func stroke(i int, width float64) string {
	return fmt.Sprintf(`stroke="%s" stroke-width="%.1f"`, palette[i%len(palette)], width)
}

func fill(i int) string { return fmt.Sprintf(`fill="%s"`, palette[i%len(palette)]) }

// A point is a figure at one message size.
type point struct {
	size int
	summary
}

// series returns the points of each of the named transports.
func (r *Result) series(of sweep, place string, names []string) [][]point {
	all := make([][]point, len(names))
	for _, row := range r.Rows {
		if row.Placement != place || !strings.HasPrefix(row.Name, of.prefix()) {
			continue
		}
		for _, t := range row.Transports {
			if s, ok := t.Summary[of.figure]; ok && s.Min > 0 {
				i := slices.Index(names, t.Name)
				all[i] = append(all[i], point{row.Size, s})
			}
		}
	}
	return all
}

// A panel is one pair of axes with its lines.
type panel struct {
	*svg
	left, top float64
}

func (p panel) draw(title string, series [][]point) {
	bottom, right := p.top+panelHeight, p.left+panelWidth
	p.text(p.left, p.top-10, "start", bold, title)
	var sizes, values []float64
	for _, s := range series {
		for _, pt := range s {
			sizes = appendNew(sizes, float64(pt.size))
			values = append(values, pt.Min, pt.Max)
		}
	}
	if len(values) == 0 {
		p.text(p.left+panelWidth/2, p.top+panelHeight/2, "middle", plain, "nothing measured")
		return
	}
	x := axis{slices.Min(sizes), slices.Max(sizes), p.left + 15, right - 15}
	y := newAxis(values, bottom, p.top)
	for _, v := range y.ticks() {
		p.line(p.left, y.at(v), right, y.at(v), gridStyle)
		p.text(p.left-6, y.at(v)+4, "end", small, tickText(v))
	}
	for _, v := range sizes {
		p.line(x.at(v), p.top, x.at(v), bottom, gridStyle)
		p.text(x.at(v), bottom+16, "middle", small, sizeText(int(v)))
	}
	p.text(p.left+panelWidth/2, bottom+36, "middle", plain, "size of a message")
	p.rect(p.left, p.top, panelWidth, panelHeight, frameStyle)
	for i, s := range series {
		p.drawSeries(x, y, i, s)
	}
}

func (p panel) drawSeries(x, y axis, i int, s []point) {
	var line [][2]float64
	for _, pt := range s {
		at := x.at(float64(pt.size))
		p.line(at, y.at(pt.Min), at, y.at(pt.Max), stroke(i, rangeWidth))
		line = append(line, [2]float64{at, y.at(pt.Median)})
	}
	p.polyline(line, stroke(i, lineWidth))
	for _, pt := range line {
		p.circle(pt[0], pt[1], markRadius, fill(i))
	}
}
