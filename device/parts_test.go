// SPDX-License-Identifier: Apache-2.0

package device

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

func TestToken(t *testing.T) {
	for range 100 {
		token := NewToken()
		if got, ok := ParseToken(token.String()); !ok || got != token {
			t.Fatalf("%v parses as %v, %v", token, got, ok)
		}
	}
	for _, s := range []string{
		"", "0000000000000000", "00000000000000a", "00000000000000a11", "00000000000000A1", "0x000000000000a1",
		"+0000000000000a1", "00000000000000g1", "0000000000000_a1", "..", "self",
	} {
		if got, ok := ParseToken(s); ok {
			t.Errorf("%q parses as %v", s, got)
		}
	}
}

func TestRetiredTokens(t *testing.T) {
	var r retiredTokens
	for i := range 2*retiredGeneration + 1 {
		r.add(Token(i + 1))
	}
	last := Token(2*retiredGeneration + 1)
	for _, c := range []struct {
		token Token
		want  bool
	}{{last, true}, {last - retiredGeneration, true}, {1, false}} {
		if got := r.has(c.token); got != c.want {
			t.Errorf("token %d is remembered: %v", c.token, got)
		}
	}
	if n := len(r.young) + len(r.old); n > 2*retiredGeneration {
		t.Errorf("%d tokens are kept", n)
	}
}

func TestUEIDs(t *testing.T) {
	table := ueidTable{ueids: []string{DefaultUEID}}
	for _, c := range []struct {
		name string
		want error
	}{
		{"A", nil}, {"A", unix.EEXIST}, {"", unix.EINVAL}, {"lower", unix.EINVAL}, {".A", unix.EINVAL}, {"-A", unix.EINVAL},
		{"A B", unix.EINVAL}, {"A\nB", unix.EINVAL}, {"123456789012345678901234567890123", unix.EINVAL},
		{"12345678901234567890123456789012", nil}, {"0-.Z", nil}, {"FIFTH", unix.ERANGE},
	} {
		if err := table.add(c.name); !errors.Is(err, c.want) {
			t.Errorf("add %q: %v, want %v", c.name, err, c.want)
		}
	}
	for _, c := range []struct {
		name string
		want error
	}{{DefaultUEID, nil}, {DefaultUEID, unix.ENOENT}, {"lower", unix.EINVAL}} {
		if err := table.remove(c.name); !errors.Is(err, c.want) {
			t.Errorf("remove %q: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestNewGID(t *testing.T) {
	g := NewGID()
	if got, err := smc.ParseGID(g.String()); err != nil || got != g {
		t.Errorf("%v parses as %v, %v", g, got, err)
	}
	if s := g.String(); s[14] != '4' || NewGID() == g {
		t.Errorf("%s is no random UUID of version 4", s)
	}
}

func TestQuota(t *testing.T) {
	const page = PageSize
	q := newQuota(Limits{MaxDMBs: 3, MaxDMBsPerUID: 2, MaxBytes: 10 * page, MaxBytesPerUID: 6 * page})
	for _, c := range []struct {
		uid  uint32
		want error
	}{{1, nil}, {1, nil}, {1, unix.ENOSPC}, {2, nil}, {2, unix.ENOSPC}} {
		if err := q.addDMB(c.uid); err != c.want {
			t.Errorf("a DMB for uid %d: %v, want %v", c.uid, err, c.want)
		}
	}
	for _, c := range []struct {
		uid  uint32
		n    int64
		want error
	}{{1, 6 * page, nil}, {1, 1, unix.ENOMEM}, {2, 5 * page, unix.ENOMEM}, {2, 4 * page, nil}, {3, 1, unix.ENOMEM}} {
		if err := q.addBytes(c.uid, c.n); err != c.want {
			t.Errorf("%d bytes for uid %d: %v, want %v", c.n, c.uid, err, c.want)
		}
	}
	q.removeBytes(1, 6*page)
	q.removeBytes(2, 4*page)
	for _, uid := range []uint32{1, 1, 2} {
		q.removeDMB(uid)
	}
	if q.total != (use{}) || len(q.perUID) != 0 {
		t.Errorf("%+v and %d uids are left", q.total, len(q.perUID))
	}
}

func TestReservations(t *testing.T) {
	const page = PageSize
	q := newQuota(Limits{MaxDMBs: 9, MaxDMBsPerUID: 9, MaxBytes: 8 * page, MaxBytesPerUID: 8 * page})
	first, err := q.reserve(1, 16*page)
	if err != nil || first != 8*page {
		t.Fatalf("alone: %d pages, %v; want all 8", first/page, err)
	}
	q.keep(1, first, 2*page)
	second, err := q.reserve(1, 4*page)
	if err != nil || second != 4*page {
		t.Fatalf("with room enough: %d pages, %v; want 4", second/page, err)
	}
	third, err := q.reserve(2, 4*page)
	if err != nil || third != page {
		t.Fatalf("near the limit, beside another: %d pages, %v; want half of the 2 left", third/page, err)
	}
	q.keep(1, second, 0)
	q.keep(2, third, 0)
	q.removeBytes(1, 2*page)
	if q.total != (use{}) || len(q.perUID) != 0 {
		t.Errorf("%+v and %d uids are left", q.total, len(q.perUID))
	}
	full := newQuota(Limits{MaxBytes: page - 1, MaxBytesPerUID: page - 1})
	if _, err := full.reserve(1, page); err != unix.ENOMEM {
		t.Errorf("without a page left: %v", err)
	}
}

func TestImplausible(t *testing.T) {
	base := counters{txBytes: 1000, procs.FirstGauge: 50}
	with := func(i int, v uint64) counters {
		c := base
		c[i] = v
		return c
	}
	for _, c := range []struct {
		name string
		now  counters
		ok   bool
	}{
		{"nothing new", base, true},
		{"more bytes", with(txBytes, 5<<30), true},
		{"fewer bytes", with(txBytes, 999), false},
		{"a falling gauge", with(procs.FirstGauge, 0), true},
		{"a counter that jumps", with(0, 1<<40), true},
		{"calls faster than memory", with(0, 1<<63), false},
		{"a fallback", with(fallbacks, 1), true},
		{"fallbacks faster than memory", with(fallbacks+1, 1<<63), false},
		{"handshake errors faster than memory", with(handshakeErrors, 1<<63), false},
		{"a reserved word", with(handshakeErrors+2, 1<<63), true},
		{"a code of a later version", with(len(counters{})-1, 1<<63), true},
		{"bytes faster than memory", with(txBytes, 1<<50), false},
		{"received faster than memory", with(rxBytes, 1<<63), false},
	} {
		if why := implausible(base, c.now, time.Second); (why == "") != c.ok {
			t.Errorf("%s: %q", c.name, why)
		}
	}
}

func TestCounterNames(t *testing.T) {
	if len(procs.CounterNames) != procs.Counters {
		t.Fatalf("%d names for %d counters", len(procs.CounterNames), procs.Counters)
	}
	for i, name := range map[int]string{0: "SMC_INT_TX_BUF_8K", rxBytes: "SMC_RX_BYTES", txBytes: "SMC_TX_BYTES",
		procs.FirstGauge: "SMC_RX_RMB_USAGE", 50: "SMC_CLNT_V1_SUCC_CNT", 42: "SMC_INT_TX_BUF_DGRADE_CNT"} {
		if procs.CounterNames[i] != name {
			t.Errorf("counter %d is %s, want %s", i, procs.CounterNames[i], name)
		}
	}
}

func TestWeightedMedian(t *testing.T) {
	for _, c := range []struct {
		in   map[int64]int64
		want int64
	}{
		{map[int64]int64{4096: 100}, 4096},
		{map[int64]int64{4096: 50, 65536: 50}, 65536},
		{map[int64]int64{4096: 51, 65536: 49}, 4096},
		{map[int64]int64{4096: 40, 65536: 30, 1 << 21: 30}, 65536},
	} {
		if got := weightedMedian(c.in, 100); got != c.want {
			t.Errorf("%v: %d, want %d", c.in, got, c.want)
		}
	}
}

// TestMemoryOnlyShrinks is what the limits and every mapping rely on.
func TestMemoryOnlyShrinks(t *testing.T) {
	m, err := newMemory(0, 4*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer m.free()
	if _, err := unix.Pwrite(m.fd, []byte{1}, 4*PageSize); err != unix.EPERM {
		t.Errorf("a write beyond the reservation: %v", err)
	}
	if err := m.fix(2 * PageSize); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{PageSize, 3 * PageSize} {
		if err := unix.Ftruncate(m.fd, size); err != unix.EPERM {
			t.Errorf("ftruncate to %d: %v", size, err)
		}
	}
}

func TestPageSizeOf(t *testing.T) {
	m, err := newMemory(0, 4*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer m.free()
	if err := m.fix(4 * PageSize); err != nil {
		t.Fatal(err)
	}
	if got := pageSizeOf(m); got < PageSize || got&(got-1) != 0 {
		t.Errorf("pages of %d bytes", got)
	}
}
