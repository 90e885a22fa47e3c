// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

func validOptions() Options {
	return Options{Rows: "all", Pin: "all", Rounds: 5, Duration: time.Second}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		change func(*Options)
		wrong  string // part of the error; empty: none
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { o.Rows = "speed" }, `no measurement "speed": there are latency`},
		{func(o *Options) { o.Pin = "both" }, "--pin"},
		{func(o *Options) { o.Rounds = 0 }, "--rounds"},
		{func(o *Options) { o.Duration = 10 }, "--duration"},
		{func(o *Options) { o.Conns = []int{10, 0} }, "--conns"},
		{func(o *Options) { o.Sizes = []string{"14", "64k", "1m"} }, ""},
		{func(o *Options) { o.Sizes = []string{"14,100"} }, `--size: "14,100"`},
		{func(o *Options) { o.Buffer = "1m" }, ""},
		{func(o *Options) { o.Buffer = "2m" }, "--buffer"},
		{func(o *Options) { o.Buffer = "8k" }, "--buffer"},
		{func(o *Options) { o.Transports = []string{"smc@256k", "unix"} }, ""},
		{func(o *Options) { o.Transports = []string{"udp"} }, `no transport "udp": there are smc`},
		{func(o *Options) { o.Sweep = true }, ""},
		{func(o *Options) { o.Sweep, o.Rows = true, "latency" }, ""},
		{func(o *Options) { o.Sweep, o.Rows = true, "idle" }, "--plot"},
	} {
		o := validOptions()
		c.change(&o)
		_, err := o.read()
		switch {
		case c.wrong == "" && err != nil:
			t.Errorf("%+v: %v", o, err)
		case c.wrong != "" && (err == nil || !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%+v: %v, want %q", o, err, c.wrong)
		}
	}
}

func TestFewRoundsAreNoted(t *testing.T) {
	o := validOptions()
	o.Rounds = 4
	s, err := o.read()
	if err != nil || !slices.ContainsFunc(s.notes, func(n string) bool { return strings.Contains(n, "4 rounds are too few") }) {
		t.Errorf("notes %q, %v", s.notes, err)
	}
}

func TestTransports(t *testing.T) {
	for _, c := range []struct {
		name string
		want transport
		ok   bool
	}{
		{"smc", transport{Name: "smc", SMC: true, Network: "tcp"}, true},
		{"smc-copy", transport{Name: "smc-copy", SMC: true, Copy: true, Network: "tcp"}, true},
		{"smc-zerocopy@1m", transport{Name: "smc-zerocopy@1m", SMC: true, ZeroCopy: true, Network: "tcp", Buffer: 1 << 20}, true},
		{"tcp", transport{Name: "tcp", Network: "tcp"}, true},
		{"unix", transport{Name: "unix", Network: "unix"}, true},
		{"c-ring", transport{Name: "c-ring", Ring: true}, true},
		{"tcp@1m", transport{}, false},
		{"smc@", transport{}, false},
		{"smc@2m", transport{}, false},
		{"smc@fast", transport{}, false},
		{"smc@busy", transport{Name: "smc@busy", SMC: true, Network: "tcp", Wait: libsmc.WaitBusy}, true},
		{"smc@blocking", transport{Name: "smc@blocking", SMC: true, Network: "tcp", Wait: libsmc.WaitBlocking}, true},
		{"smc@adaptive", transport{Name: "smc@adaptive", SMC: true, Network: "tcp", Wait: libsmc.WaitAdaptive}, true},
		{"smc@1m+busy", transport{Name: "smc@1m+busy", SMC: true, Network: "tcp", Buffer: 1 << 20, Wait: libsmc.WaitBusy}, true},
		{"smc-copy@blocking+64k", transport{Name: "smc-copy@blocking+64k", SMC: true, Copy: true, Network: "tcp", Buffer: 64 << 10, Wait: libsmc.WaitBlocking}, true},
		{"smc@busy+blocking", transport{}, false},
		{"smc@1m+huge", transport{Name: "smc@1m+huge", SMC: true, Network: "tcp", Buffer: 1 << 20, Pages: hugePages}, true},
		{"smc@base", transport{Name: "smc@base", SMC: true, Network: "tcp", Pages: basePages}, true},
		{"smc@huge+base", transport{}, false},
		{"tcp@huge", transport{}, false},
		{"smc@1m+64k", transport{}, false},
		{"smc@busy+", transport{}, false},
		{"smc@default", transport{}, false},
		{"unix@busy", transport{}, false},
		{"", transport{}, false},
	} {
		got, err := parseTransport(c.name)
		if (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%q: %+v, %v", c.name, got, err)
		}
	}
}

// What asks for huge pages is refused, with the way out, where the kernel gives none; the row of its own is left out.
func TestNoHugePages(t *testing.T) {
	o := validOptions()
	o.Rows, o.NoHugePages, o.Transports = "bandwidth", "none: echo advise > x", []string{"smc@1m+huge"}
	if _, err := o.read(); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), o.NoHugePages) {
		t.Error(err)
	}
	o.Transports = nil
	s, err := o.read()
	if err != nil {
		t.Fatal(err)
	}
	r := run{settings: s, device: &device{}}
	possible, err := r.possible(slices.DeleteFunc(s.rowsOf("bandwidth"), func(r row) bool { return r.kind != pagesKind && r.name != "bandwidth-64000" }))
	if err != nil || len(possible) != 1 || possible[0].name != "bandwidth-64000" {
		t.Errorf("%+v, %v", possible, err)
	}
	if !slices.ContainsFunc(s.notes, func(n string) bool { return strings.Contains(n, "bandwidth-pages-64000 is left out: none") }) {
		t.Errorf("no word of it: %q", s.notes)
	}
}

func TestPages(t *testing.T) {
	for _, c := range []struct {
		want pages
		size int64
		ok   bool
	}{
		{"", 0, true}, {"", 4096, true}, {hugePages, 64 << 10, true}, {hugePages, 4096, false}, {hugePages, 0, false},
		{basePages, 4096, true}, {basePages, 1 << 20, false}, {basePages, 0, false},
	} {
		if err := c.want.check(c.size); (err == nil) != c.ok || err != nil && !errors.Is(err, errPages) {
			t.Errorf("%q of %d: %v", c.want, c.size, err)
		}
	}
}

// --buffer is for the transports that say nothing of their own.
func TestBuffer(t *testing.T) {
	o := validOptions()
	o.Buffer, o.Transports = "256k", []string{"smc", "smc@1m", "tcp"}
	s, err := o.read()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{256 << 10, 1 << 20, 0} {
		if s.transports[i].Buffer != want {
			t.Errorf("%s has a buffer of %d", s.transports[i].Name, s.transports[i].Buffer)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int{"1": 1, "64000": 64000, "16k": 16384, "64K": 65536, "1m": 1 << 20, "1024M": 1 << 30} {
		if n, err := parseSize(text); n != want || err != nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "0", "k", "-1", "1g", "2048m", "1.5k", "99999999999"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
	for n, want := range map[int]string{14: "14 B", 100: "100 B", 1024: "1 KiB", 64000: "64,000 B", 65536: "64 KiB", 1 << 20: "1 MiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// The rows of all commands are those of all, each with names of their own, and each has TCP to compare with.
func TestRows(t *testing.T) {
	o := validOptions()
	o.Sweep = true
	s, err := o.read()
	if err != nil {
		t.Fatal(err)
	}
	var apart, together []string
	for _, command := range RowNames[:len(RowNames)-1] {
		rows := s.rowsOf(command)
		if len(rows) == 0 {
			t.Errorf("%s has no rows", command)
		}
		for _, r := range rows {
			apart = append(apart, r.name)
		}
	}
	for _, r := range s.rowsOf("all") {
		together = append(together, r.name)
		if r.kind != socketsKind && !slices.ContainsFunc(r.transports, func(t transport) bool { return t.Name == baseline }) {
			t.Errorf("%s has no TCP to compare with", r.name)
		}
		if _, ok := activities[r.task.Activity]; !ok {
			t.Errorf("%s wants the activity %q, which there is not", r.name, r.task.Activity)
		}
	}
	slices.Sort(apart)
	slices.Sort(together)
	if !slices.Equal(apart, together) {
		t.Errorf("one by one:\n%v\nall:\n%v", apart, together)
	}
	if unique := slices.Compact(slices.Clone(together)); len(unique) != len(together) {
		t.Errorf("names come twice: %v", together)
	}
}

func TestSizeAndConnsReplaceTheRowsOwn(t *testing.T) {
	o := validOptions()
	o.Sizes, o.Conns = []string{"100", "5000"}, []int{7}
	s, err := o.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.rowsOf("all") {
		switch r.command {
		case "latency", "stream", "bandwidth", "requests":
			if r.task.Size != 100 && r.task.Size != 5000 {
				t.Errorf("%s has messages of %d bytes", r.name, r.task.Size)
			}
		}
		if n := r.task.Conns; n != 0 && n != 7 {
			t.Errorf("%s has %d connections", r.name, n)
		}
	}
}
