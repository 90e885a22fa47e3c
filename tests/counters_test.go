// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Numbers of counters (docs/dmb-format.md, 3.2).
const (
	counterFirst, counterRxBytes, counterTxBytes, counterTxCalls, counterTxUse = 0, 59, 60, 62, 64

	nameFirst, nameTxCalls, nameTxUse = "SMC_INT_TX_BUF_8K", "SMC_TX_CNT", "SMC_TX_RMB_USAGE"
)

// TestCounters: the numbers of all processes are summed, and those that have gone still count, but for what they no longer use.
func TestCounters(t *testing.T) {
	d := mountDevice(t)
	a, b := startClient(t), startClient(t, asUser(1000))
	_, blockA := a.Block(d)
	_, blockB := b.Block(d)
	want := func(first, tx, calls, use uint64) {
		t.Helper()
		s := d.Stats().SMCD
		if s[nameFirst] != first || s["SMC_TX_BYTES"] != tx || s[nameTxCalls] != calls || s[nameTxUse] != use {
			t.Errorf("stats have %d, %d, %d, %d; not %d, %d, %d, %d", s[nameFirst], s["SMC_TX_BYTES"], s[nameTxCalls], s[nameTxUse],
				first, tx, calls, use)
		}
		if d.Read("xfer_bytes") != fmt.Sprint(tx) {
			t.Errorf("xfer_bytes is %s, not %d", d.Read("xfer_bytes"), tx)
		}
	}
	if n := len(d.Stats().SMCD); n != 65 {
		t.Errorf("stats have %d counters", n)
	}
	want(0, 0, 0, 0)
	for i, n := range map[int]uint64{counterFirst: 1, counterTxBytes: 1 << 20, counterRxBytes: 5, counterTxCalls: 3, counterTxUse: 7} {
		a.SetCounter(blockA, i, n)
		b.SetCounter(blockB, i, 2*n)
	}
	want(3, 3<<20, 9, 21)
	a.SetCounter(blockA, counterTxUse, 1) // may fall
	want(3, 3<<20, 9, 15)
	b.SetCounter(blockB, counterTxBytes, 3<<20) // never read before it goes
	b.Kill()
	waitFor(t, "the user's end", func() error {
		if n := len(d.Stats().Device.Processes); n != 1 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	want(3, 4<<20, 9, 1)
	a.Kill()
	d.WantNothing()
	want(3, 4<<20, 9, 0)
	if liars := d.Stats().Device.Liars; len(liars) != 0 {
		t.Errorf("liars: %+v", liars)
	}
}

// TestLiars: numbers that cannot be true are dropped from then on and their process is named, to who may see everybody.
func TestLiars(t *testing.T) {
	for _, tt := range []struct {
		name    string
		counter int
		lie     uint64
		why     string
	}{
		{"backwards", counterTxBytes, 999, "SMC_TX_BYTES ran backwards from 1000 to 999"},
		{"too fast", counterTxBytes, 1 << 50, "SMC_TX_BYTES grew by"},
		{"received too fast", counterRxBytes, 1 << 63, "SMC_RX_BYTES grew by"},
		{"wrapped round", counterTxBytes, 1<<64 - 1, "SMC_TX_BYTES grew by"},
		{"another one", counterTxCalls, 0, nameTxCalls + " ran backwards"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := mountDevice(t)
			honest, liar := startClient(t), startClient(t, asUser(1000))
			_, block := honest.Block(d)
			honest.SetCounter(block, counterTxBytes, 1)
			_, lies := liar.Block(d)
			liar.SetCounter(lies, counterTxBytes, 1000)
			liar.SetCounter(lies, counterTxCalls, 5)
			wantXfer := func(want string) {
				t.Helper()
				if have := d.Read("xfer_bytes"); have != want {
					t.Errorf("xfer_bytes is %s, not %s", have, want)
				}
			}
			wantXfer("1001")
			liar.SetCounter(lies, tt.counter, tt.lie)
			wantXfer("1001")
			liar.SetCounter(lies, tt.counter, 2000) // too late for the truth
			honest.SetCounter(block, counterTxBytes, 2)
			wantXfer("1002")
			s := d.Stats().Device
			if len(s.Liars) != 1 || s.Liars[0].PID != liar.PID() || s.Liars[0].UID != 1000 || !strings.HasPrefix(s.Liars[0].Why, tt.why) {
				t.Errorf("liars are %+v, not one of %q", s.Liars, tt.why)
			}
			if log := d.log.String(); strings.Count(log, fmt.Sprintf("pid=%d uid=1000", liar.PID())) != 1 || !strings.Contains(log, tt.why) {
				t.Error("the log does not name the liar once")
			}
			if s := startClient(t, asUser(1001)).Stats(d).Device; len(s.Liars) != 0 || len(s.Processes) != 0 {
				t.Errorf("another uid sees liars %+v, processes %+v", s.Liars, s.Processes)
			}
			liar.Kill()
			waitFor(t, "the liar's end", func() error {
				if n := len(d.Stats().Device.Processes); n != 1 {
					return fmt.Errorf("%d processes", n)
				}
				return nil
			})
			wantXfer("1002")
		})
	}
}

// TestCounterHoles: a block without its pages counts as zeros, which is a lie unless it never said anything.
func TestCounterHoles(t *testing.T) {
	d := mountDevice(t)
	quiet, liar := startClient(t), startClient(t)
	_, a := quiet.Block(d)
	_, b := liar.Block(d)
	liar.SetCounter(b, counterTxBytes, 10)
	if d.Read("xfer_bytes") != "10" {
		t.Error("not counted")
	}
	wantErrno(t, "MADV_REMOVE", quiet.Madvise(a, unix.MADV_REMOVE), nil)
	wantErrno(t, "MADV_REMOVE", liar.Madvise(b, unix.MADV_REMOVE), nil)
	if d.Read("xfer_bytes") != "10" {
		t.Error("what was counted is gone")
	}
	if s := d.Stats().Device; len(s.Liars) != 1 || s.Liars[0].PID != liar.PID() {
		t.Errorf("liars are %+v", s.Liars)
	}
	quiet.SetCounter(a, counterTxBytes, 7)
	if d.Read("xfer_bytes") != "17" {
		t.Error("the quiet one is not counted any more")
	}
}

// TestHandshakeCounters: how handshakes failed, summed as the other numbers are, in stats and in the tool.
func TestHandshakeCounters(t *testing.T) {
	const errClient, errServer = (584 - 64) / 8, (592 - 64) / 8 // as numbers of counters
	fallback := func(code, role int) int { return (640-64)/8 + 2*code + role }
	const server, client = 0, 1
	const mem, noUEID, peerDecl = 0, 14, 31 // places in the list of codes
	d := mountDevice(t)
	a, b := startClient(t), startClient(t, asUser(1000))
	_, blockA := a.Block(d)
	_, blockB := b.Block(d)
	want := func(text string) {
		t.Helper()
		if s := d.Read("stats"); !strings.Contains(s, `"handshake":`+text+`,"device"`) {
			t.Errorf("stats is %s, without %s", s, text)
		}
	}
	want(`{"client_errors":0,"server_errors":0,"client_fallback":{},"server_fallback":{}}`)
	a.SetCounter(blockA, errClient, 1)
	b.SetCounter(blockB, errClient, 2)
	b.SetCounter(blockB, errServer, 4)
	a.SetCounter(blockA, fallback(noUEID, server), 1)
	b.SetCounter(blockB, fallback(noUEID, server), 1)
	b.SetCounter(blockB, fallback(peerDecl, client), 5)
	b.SetCounter(blockB, fallback(63, client), 9) // no code yet
	const all = `{"client_errors":3,"server_errors":4,"client_fallback":{"PEERDECL":5},"server_fallback":{"NOUEID":2}}`
	want(all)
	b.Kill()
	waitFor(t, "the user's end", func() error {
		if n := len(d.Stats().Device.Processes); n != 1 {
			return fmt.Errorf("%d processes", n)
		}
		return nil
	})
	want(all)
	text := d.dump("-ad", "stats")
	for _, line := range []string{
		"  Total connections handled            14\n", "  Handshake errors                      7 (client 3, server 4)\n",
		"    Server\n     [unknown]                          2\n    Client\n     PEERDECL                           5\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the tool does not print %q:\n%s", line, text)
		}
	}
	a.SetCounter(blockA, fallback(mem, client), 1<<60)
	want(all)
	if s := d.Stats().Device; len(s.Liars) != 1 || !strings.HasPrefix(s.Liars[0].Why, "client fallbacks for MEM grew by") {
		t.Errorf("liars are %+v", s.Liars)
	}
}
