// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package stream

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// Reading and writing allocate nothing, whether or not they have to wait and however they do.
func TestNoAllocations(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for _, s := range strategies {
			for _, crowd := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, crowd %v", s, crowd), func(t *testing.T) {
					g := d.newGroup(t)
					if crowd {
						g.crowd()
					}
					c1, c2, err := g.pair(ringSize)
					if err != nil {
						t.Fatal(err)
					}
					defer endPair(t, c1, c2)
					c1.link.Wait, c2.link.Wait = s, s
					c1.SetDeadline(time.Now().Add(patience))
					go answer(c2, 3000)
					p := make([]byte, 3000)
					allocated := testing.AllocsPerRun(200, func() {
						c1.Write(p)
						if _, err := io.ReadFull(c1, p); err != nil {
							t.Fatal(err)
						}
					})
					if allocated >= 1 {
						t.Errorf("%v allocations for a Write, a Read and their peers'", allocated)
					}
				})
			}
		}
	})
}
