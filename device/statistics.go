// SPDX-License-Identifier: Apache-2.0

package device

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// counters are the numbers of one procs block: the words from procs.OffCounters to procs.CountersEnd.
type counters [(procs.CountersEnd - procs.OffCounters) / 8]uint64

// Places in counters that the device itself looks at.
const (
	rxBytes         = 59
	txBytes         = 60
	handshakeErrors = (procs.OffHandshakeErrors - procs.OffCounters) / 8
	fallbacks       = (procs.OffFallbacks - procs.OffCounters) / 8
)

// grows reports whether the number at place i is one that never falls, and what it is called. The others are gauges, and
// places of which this version knows nothing.
func grows(i int) (name string, ok bool) {
	switch {
	case i < procs.FirstGauge:
		return procs.CounterNames[i], true
	case i == handshakeErrors:
		return "client handshake errors", true
	case i == handshakeErrors+1:
		return "server handshake errors", true
	case i < fallbacks || i >= fallbacks+2*len(smc.DeclineCodes):
		return "", false
	}
	return fmt.Sprintf("%v fallbacks for %s", fallbackRole(i), smc.DeclineCodes[(i-fallbacks)/2].String()), true
}

func fallbackRole(i int) procs.Role {
	if (i-fallbacks)%2 == 0 {
		return procs.Server
	}
	return procs.Client
}

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
	// clock and the counters were read apart. Nothing else can be counted faster than its bytes.
	fastestMemory = 1 << 40
)

func (s *statistics) gone(c counters) {
	for i, v := range c {
		if i < procs.FirstGauge || i >= procs.Counters {
			s.past[i] += v
		}
	}
}

// readBlock returns the block's numbers, the last ones accepted if what it says now cannot be true. The lock is held.
func (d *Device) readBlock(b *block) counters {
	if b.liar != "" || b.mem == nil || b.size == 0 {
		return b.last
	}
	var raw [procs.CountersEnd - procs.OffCounters]byte
	// pread, not a mapping: what the owner has punched out reads as zeros and costs the daemon no page.
	if n, err := unix.Pread(b.mem.fd, raw[:], procs.OffCounters); err != nil || n != len(raw) {
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
	most := uint64(took.Seconds()*fastestMemory) + fastestMemory
	for i := range now {
		if now[i] >= old[i] && now[i]-old[i] <= most {
			continue
		}
		name, ok := grows(i)
		switch {
		case !ok:
		case now[i] < old[i]:
			return fmt.Sprintf("%s ran backwards from %d to %d", name, old[i], now[i])
		default:
			return fmt.Sprintf("%s grew by %d in %v, faster than memory", name, now[i]-old[i], took)
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

// Handshake is how handshakes ended that made no SMC connection, in each role: errors, and how often it was TCP for which
// reason, under the kernel's names.
type Handshake struct {
	ClientErrors   uint64            `json:"client_errors"`
	ServerErrors   uint64            `json:"server_errors"`
	ClientFallback map[string]uint64 `json:"client_fallback"`
	ServerFallback map[string]uint64 `json:"server_fallback"`
}

func (c *counters) handshake() Handshake {
	h := Handshake{
		ClientErrors: c[handshakeErrors], ServerErrors: c[handshakeErrors+1],
		ClientFallback: make(map[string]uint64), ServerFallback: make(map[string]uint64),
	}
	for i, code := range smc.DeclineCodes {
		if n := c[fallbacks+2*i]; n != 0 {
			h.ServerFallback[code.String()] = n
		}
		if n := c[fallbacks+2*i+1]; n != 0 {
			h.ClientFallback[code.String()] = n
		}
	}
	return h
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
	Handshake Handshake
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
	for i, name := range procs.CounterNames {
		s.Counters = append(s.Counters, Counter{name, total[i]})
	}
	s.Handshake = total.handshake()
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
