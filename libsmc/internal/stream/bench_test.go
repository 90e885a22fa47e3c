// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"io"
	"testing"
)

// These show that reading and writing allocate nothing. They are no measure of speed: both ends are in one process.

func benchmarkModes(b *testing.B, f func(b *testing.B, d *daemon)) {
	for name, d := range modes {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			f(b, d.started(b))
		})
	}
}

func BenchmarkPingPong(b *testing.B) {
	benchmarkModes(b, func(b *testing.B, d *daemon) {
		c1, c2 := d.mustPair(b, 64<<10)
		go answer(c2, 14)
		p := make([]byte, 14)
		for b.Loop() {
			c1.Write(p)
			if _, err := io.ReadFull(c1, p); err != nil {
				b.Fatal(err)
			}
		}
		c1.Close()
	})
}

func BenchmarkStream64000(b *testing.B) {
	benchmarkModes(b, func(b *testing.B, d *daemon) {
		c1, c2 := d.mustPair(b, 1<<20)
		go func() {
			for p := make([]byte, 64000); ; {
				if _, err := c2.Read(p); err != nil {
					return
				}
			}
		}()
		p := make([]byte, 64000)
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			if _, err := c1.Write(p); err != nil {
				b.Fatal(err)
			}
		}
		c1.Close()
	})
}
