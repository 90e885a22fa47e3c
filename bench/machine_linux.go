// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A machine is where the figures are from.
type machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"` // that this process may use
	Memory uint64 `json:"memory_bytes"`
	Kernel string `json:"kernel"`
}

func thisMachine() (machine, error) {
	cpus, err := ownCPUs()
	if err != nil {
		return machine{}, err
	}
	m := machine{CPU: "unknown CPU", CPUs: len(cpus)}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m.Memory = uint64(info.Totalram) * uint64(info.Unit)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m, nil
}
