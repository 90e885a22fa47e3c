// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Figures of a process's resident memory, in bytes.
const (
	memoryAnon   = "anon_bytes"   // its own: heap, stacks
	memoryShared = "shared_bytes" // mapped DMBs, which the peer and the device count, too
)

// residentMemory returns what of this process is in memory, after garbage and what Go keeps for later are let go.
func residentMemory() (figures, error) {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	f := figures{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		name, ok := map[string]string{"RssAnon": memoryAnon, "RssShmem": memoryShared}[key]
		if !ok {
			continue
		}
		kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		if err != nil {
			return nil, fmt.Errorf("/proc/self/status: %s: %w", key, err)
		}
		f[name] = float64(kib) * 1024
	}
	return f, nil
}

// allowDescriptors lets this process, and those it starts, open so many files, or as many as it may, and returns how many.
func allowDescriptors(need uint64) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Max >= need {
		return need, nil // a Go program raises its own limit that far
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: need}) == nil {
		return need, nil
	}
	return limit.Max, nil
}
