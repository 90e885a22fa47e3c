// SPDX-License-Identifier: Apache-2.0

package device

import "testing"

// The daemon's share of the operations that programs wait for. What FUSE adds is in docs/performance.md.

func BenchmarkRegister(b *testing.B) {
	d, err := New(Config{Limits: DefaultLimits(16 << 30)})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	me := self()
	b.ReportAllocs()
	for b.Loop() {
		h, err := d.RegisterDMB(me, NewToken(), true)
		if err != nil {
			b.Fatal(err)
		}
		if err := h.DMB.SetSize(me, 64<<10); err != nil {
			b.Fatal(err)
		}
		d.DetachDMB(h)
	}
}

func BenchmarkAttach(b *testing.B) {
	d, err := New(Config{Limits: DefaultLimits(16 << 30)})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	me := self()
	owner, err := d.RegisterDMB(me, NewToken(), false)
	if err != nil {
		b.Fatal(err)
	}
	if err := owner.DMB.SetSize(me, 64<<10); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h, err := d.AttachDMB(me, owner.DMB, ReadWrite)
		if err != nil {
			b.Fatal(err)
		}
		d.DetachDMB(h)
	}
}

func BenchmarkPrincipal(b *testing.B) {
	me := self()
	for b.Loop() {
		if _, err := me.principal(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProcess(b *testing.B) {
	me := self()
	for b.Loop() {
		if _, err := me.process(); err != nil {
			b.Fatal(err)
		}
	}
}
