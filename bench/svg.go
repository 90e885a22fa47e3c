// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// An svg is a drawing, in pixels from the upper left corner.
type svg struct {
	body          bytes.Buffer
	width, height int
}

func (d *svg) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(&d.body, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, style)
}

func (d *svg) circle(x, y, r float64, style string) {
	fmt.Fprintf(&d.body, `<circle cx="%.1f" cy="%.1f" r="%.1f" %s/>`+"\n", x, y, r, style)
}

func (d *svg) rect(x, y, width, height float64, style string) {
	fmt.Fprintf(&d.body, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" %s/>`+"\n", x, y, width, height, style)
}

func (d *svg) polyline(points [][2]float64, style string) {
	var list strings.Builder
	for _, p := range points {
		fmt.Fprintf(&list, "%.1f,%.1f ", p[0], p[1])
	}
	fmt.Fprintf(&d.body, `<polyline points="%s" fill="none" %s/>`+"\n", strings.TrimSpace(list.String()), style)
}

// text writes text, whose anchor is start, middle or end.
func (d *svg) text(x, y float64, anchor, style, text string) {
	fmt.Fprintf(&d.body, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>`, x, y, anchor, style)
	xml.EscapeText(&d.body, []byte(text))
	d.body.WriteString("</text>\n")
}

// writeTo writes the drawing, on white, with its title.
func (d *svg) writeTo(w io.Writer, title string) error {
	var head bytes.Buffer
	fmt.Fprintf(&head, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n<title>", d.width, d.height)
	xml.EscapeText(&head, []byte(title))
	head.WriteString("</title>\n" + `<rect width="100%" height="100%" fill="white"/>` + "\n")
	_, err := fmt.Fprintf(w, "%s%s</svg>\n", &head, &d.body)
	return err
}
