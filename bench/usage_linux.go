// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a process has used.
type usage struct {
	At          time.Duration `json:"at_ns"` // when it was looked at, since some moment
	CPU         time.Duration `json:"cpu_ns"`
	Voluntary   int64         `json:"voluntary"`   // context switches because it slept
	Involuntary int64         `json:"involuntary"` // because something else was to run
}

var begin = time.Now()

// usageNow returns what this process has used so far.
func usageNow() (usage, error) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	return usage{
		At: time.Since(begin), CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Voluntary: r.Nvcsw, Involuntary: r.Nivcsw,
	}, nil
}

// since returns what was used after another look.
func (u usage) since(before usage) usage {
	return usage{u.At - before.At, u.CPU - before.CPU, u.Voluntary - before.Voluntary, u.Involuntary - before.Involuntary}
}

// per puts what a side used into figures: by operation, and by gigabyte if bytes were moved.
func (u usage) per(side string, operations, bytes float64, f figures) {
	if operations > 0 {
		f[side+"_cpu_us_per_op"] = micros(u.CPU) / operations
		f[side+"_voluntary_per_op"] = float64(u.Voluntary) / operations
		f[side+"_involuntary_per_op"] = float64(u.Involuntary) / operations
	}
	if gb := bytes / 1e9; gb > 0 {
		f[side+"_cpu_s_per_gb"] = u.CPU.Seconds() / gb
		f[side+"_voluntary_per_gb"] = float64(u.Voluntary) / gb
		f[side+"_involuntary_per_gb"] = float64(u.Involuntary) / gb
	}
	if u.At > 0 {
		f[side+"_cpu_percent"] = 100 * float64(u.CPU) / float64(u.At)
	}
}
