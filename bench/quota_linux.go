// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A quota is a cgroup whose processes share half a CPU.
type quota struct{ dir string }

// Half of each period, in microseconds. The period is the kernel's default.
const (
	quotaPeriod = 100_000
	quotaTime   = quotaPeriod / 2
)

// makeQuota makes the group at the root of the hierarchy that has the cpu controller.
func makeQuota() (*quota, error) {
	q, err := newQuota()
	if err != nil {
		return nil, fmt.Errorf("a cgroup with a quota of half a CPU: %w", err)
	}
	return q, nil
}

func newQuota() (*quota, error) {
	root, v2, err := cpuHierarchy()
	if err != nil {
		return nil, err
	}
	q := &quota{filepath.Join(root, fmt.Sprintf("ismfs-bench-%d", os.Getpid()))}
	if err := os.Mkdir(q.dir, 0o755); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("%w: run as root", err)
		}
		return nil, err
	}
	if v2 {
		err = q.write("cpu.max", fmt.Sprintf("%d %d", quotaTime, quotaPeriod))
	} else {
		err = errors.Join(q.write("cpu.cfs_period_us", fmt.Sprint(quotaPeriod)), q.write("cpu.cfs_quota_us", fmt.Sprint(quotaTime)))
	}
	if err != nil {
		return nil, errors.Join(err, q.remove())
	}
	return q, nil
}

// cpuHierarchy finds the cgroup hierarchy that rations CPU time.
func cpuHierarchy() (root string, v2 bool, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		switch {
		case g[0] == "cgroup" && slices.Contains(strings.Split(g[2], ","), "cpu"):
			return f[4], false, nil
		case g[0] == "cgroup2":
			given, err := os.ReadFile(filepath.Join(f[4], "cgroup.subtree_control"))
			if err == nil && slices.Contains(strings.Fields(string(given)), "cpu") {
				return f[4], true, nil
			}
		}
	}
	return "", false, errors.New("no cgroup hierarchy here hands the cpu controller to its groups")
}

func (q *quota) write(file, text string) error {
	return os.WriteFile(filepath.Join(q.dir, file), []byte(text), 0)
}

// admit puts a process into the group.
func (q *quota) admit(pid int) error { return q.write("cgroup.procs", strconv.Itoa(pid)) }

// remove removes the group, whose processes have ended.
func (q *quota) remove() error {
	if err := unix.Rmdir(q.dir); err != nil {
		return fmt.Errorf("removing the cgroup %s: %w", q.dir, err)
	}
	return nil
}
