// SPDX-License-Identifier: Apache-2.0

package device

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// counters are the numbers of one procs block, in the order of counterNames.
type counters [counterCount]uint64

// Places in counters that the device itself looks at.
const (
	rxBytes    = 59
	txBytes    = 60
	firstGauge = 63 // the last two may fall
)

// counterNames are the keys of `smcd stats json` in the tool's order.
var counterNames = func() []string {
	sizes := []string{"8K", "16K", "32K", "64K", "128K", "256K", "512K", "1024K", "G_1024K"}
	events := []string{"SIZE_SM_PEER_CNT", "SIZE_SM_CNT", "FULL_PEER_CNT", "FULL_CNT", "REUSE_CNT", "ALLOC_CNT", "DGRADE_CNT"}
	var names []string
	for _, group := range []struct {
		prefix string
		of     []string
	}{
		{"SMC_INT_TX_BUF_", sizes}, {"SMC_INT_RX_BUF_", sizes}, {"SMC_USR_TX_BUF_", sizes}, {"SMC_USR_RX_BUF_", sizes},
		{"SMC_INT_TX_BUF_", events}, {"SMC_INT_RX_BUF_", events},
	} {
		for _, s := range group.of {
			names = append(names, group.prefix+s)
		}
	}
	return append(names,
		"SMC_CLNT_V1_SUCC_CNT", "SMC_CLNT_V2_SUCC_CNT", "SMC_SRV_V1_SUCC_CNT", "SMC_SRV_V2_SUCC_CNT",
		"SMC_SENDPAGE_CNT", "SMC_URG_DATA_CNT", "SMC_SPLICE_CNT", "SMC_CORK_CNT", "SMC_NDLY_CNT",
		"SMC_RX_BYTES", "SMC_TX_BYTES", "SMC_RX_CNT", "SMC_TX_CNT", "SMC_RX_RMB_USAGE", "SMC_TX_RMB_USAGE")
}()

// statistics is what is kept besides the live blocks. The device's lock protects it.
type statistics struct {
	past     counters // of processes that have exited
	xferBase uint64   // SMC_TX_BYTES of all when the device was last activated
	liars    []Liar   // the latest, at most maxLiars
}

// A Liar is a process whose counters cannot be true.
type Liar struct {
	ID  uint32 `json:"id"`
	PID int    `json:"pid"`
	UID uint32 `json:"uid"`
	Why string `json:"why"`
}

const (
	maxLiars = 16
	// No memory moves this fast: bytes a second that a process may claim, and as much again at once for the time that the
	// clock and the counters were read apart.
	fastestMemory = 1 << 40
)

func (s *statistics) gone(c counters) {
	for i := range c[:firstGauge] {
		s.past[i] += c[i]
	}
}

// readBlock returns the block's numbers, the last ones accepted if what it says now cannot be true. The lock is held.
func (d *Device) readBlock(b *block) counters {
	if b.liar != "" || b.mem == nil || b.size == 0 {
		return b.last
	}
	var raw [counterCount * 8]byte
	// pread, not a mapping: what the owner has punched out reads as zeros and costs the daemon no page.
	if n, err := unix.Pread(b.mem.fd, raw[:], offBlockCounters); err != nil || n != len(raw) {
		return b.last
	}
	var now counters
	for i := range now {
		now[i] = binary.NativeEndian.Uint64(raw[i*8:])
	}
	at := time.Now()
	if why := implausible(b.last, now, at.Sub(b.lastAt)); why != "" {
		d.nameLiar(b, why)
		return b.last
	}
	b.last, b.lastAt = now, at
	return now
}

// implausible says what cannot be true of counters that were old and are now, empty if all can.
func implausible(old, now counters, took time.Duration) string {
	for i, name := range counterNames[:firstGauge] {
		if now[i] < old[i] {
			return fmt.Sprintf("%s ran backwards from %d to %d", name, old[i], now[i])
		}
	}
	most := uint64(took.Seconds()*fastestMemory) + fastestMemory
	for _, i := range []int{rxBytes, txBytes} {
		if grown := now[i] - old[i]; grown > most {
			return fmt.Sprintf("%s grew by %d in %v, faster than memory", counterNames[i], grown, took)
		}
	}
	return ""
}

func (d *Device) nameLiar(b *block, why string) {
	b.liar = why
	l := Liar{ID: b.process.ID, PID: b.process.PID, UID: b.uid, Why: why}
	d.log.Warn("a process's counters are not believed any more", "pid", l.PID, "uid", l.UID, "why", why)
	if len(d.stats.liars) == maxLiars {
		d.stats.liars = slices.Delete(d.stats.liars, 0, 1)
	}
	d.stats.liars = append(d.stats.liars, l)
}

// sum adds up all counters, of live and gone processes. The lock is held.
func (d *Device) sum() counters {
	total := d.stats.past
	for _, p := range d.processes.byID {
		if p.block == nil {
			continue
		}
		for i, v := range d.readBlock(p.block) {
			total[i] += v
		}
	}
	return total
}

func (d *Device) resetXfer() { d.stats.xferBase = d.sum()[txBytes] }

// XferBytes returns the payload bytes moved since the device was activated, counted once, at the sender.
func (d *Device) XferBytes() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sum()[txBytes] - d.stats.xferBase
}

// A Counter is one statistic with the name that smcd gives it.
type Counter struct {
	Name  string
	Value uint64
}

// ProcessInfo describes a process that the device knows.
type ProcessInfo struct {
	ID   uint32 `json:"id"`
	PID  int    `json:"pid"`
	UID  uint32 `json:"uid"`
	DMBs int    `json:"dmbs"` // that it owns or is attached to
}

// Stats is what the device has counted and how it stands.
type Stats struct {
	Counters  []Counter // in smcd's order
	State     State
	Epoch     uint64
	Started   time.Time
	Limits    Limits
	DMBs      int   // registered or held
	Bytes     int64 // of all DMBs and procs blocks
	Processes []ProcessInfo
	Liars     []Liar
}

// Statistics returns the counters, summed over live and gone processes, and how the device stands. Processes are shown to
// who may see their blocks, liars to who may see everything.
func (d *Device) Statistics(c Caller) Stats {
	pid, who, err := c.identify()
	known := err == nil
	d.mu.Lock()
	defer d.mu.Unlock()
	total := d.sum()
	s := Stats{
		State: d.state, Epoch: d.epoch, Started: d.started, Limits: d.quota.limits,
		DMBs: d.quota.total.dmbs, Bytes: d.quota.total.bytes,
	}
	for i, name := range counterNames {
		s.Counters = append(s.Counters, Counter{name, total[i]})
	}
	for _, p := range d.processes.byID {
		if known && d.maySee(p, pid, who) {
			s.Processes = append(s.Processes, ProcessInfo{ID: p.ID, PID: p.PID, UID: p.uid, DMBs: len(p.dmbs)})
		}
	}
	slices.SortFunc(s.Processes, func(a, b ProcessInfo) int { return cmp.Compare(a.ID, b.ID) })
	if known && d.privileged(who) {
		s.Liars = slices.Clone(d.stats.liars)
	}
	return s
}
