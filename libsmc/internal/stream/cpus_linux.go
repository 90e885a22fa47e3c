// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// affinity returns how many CPUs this process may run on, 0 if that cannot be found out, and the first of them.
func affinity() (count, first int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0
	}
	for !set.IsSet(first) {
		first++
	}
	return set.Count(), first
}

// yield lets another thread have the CPU, if one waits for it.
func yield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// hasCPUQuota reports whether a cgroup rations this process's CPU time. What cannot be read counts as no.
func hasCPUQuota() bool {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(groups)) {
		// ID:controllers:path, where version 2 names no controllers
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 {
			continue
		}
		switch {
		case f[1] == "" && (limited("/sys/fs/cgroup", f[2], maxLimited) || limited("/sys/fs/cgroup/unified", f[2], maxLimited)):
			return true
		case strings.Contains(","+f[1]+",", ",cpu,") && limited("/sys/fs/cgroup/cpu", f[2], cfsLimited):
			return true
		}
	}
	return false
}

// limited reports whether a group or one above it is limited.
func limited(root, group string, is func(dir string) bool) bool {
	for {
		if is(path.Join(root, group)) {
			return true
		}
		if group == "/" || group == "." {
			return false
		}
		group = path.Dir(group)
	}
}

// maxLimited reads version 2's "max 100000" or "50000 100000".
func maxLimited(dir string) bool {
	text, err := os.ReadFile(path.Join(dir, "cpu.max"))
	return err == nil && !strings.HasPrefix(string(text), "max")
}

// cfsLimited reads version 1's quota in microseconds, or -1.
func cfsLimited(dir string) bool {
	text, err := os.ReadFile(path.Join(dir, "cpu.cfs_quota_us"))
	return err == nil && !strings.HasPrefix(string(text), "-")
}
