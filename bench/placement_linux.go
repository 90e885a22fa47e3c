// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A placement is where the two processes of a pair run.
type placement struct {
	Name   string `json:"name"`
	Server []int  `json:"server_cpus"` // none: wherever the scheduler puts it
	Client []int  `json:"client_cpus"`
}

const (
	twoCPUs = "two CPUs"
	oneCPU  = "one CPU"
	free    = "free"
)

// placements returns those that --pin names, as far as this process's CPUs allow. note says what is left out.
func placements(pin string) (all []placement, note string, err error) {
	cpus, err := ownCPUs()
	if err != nil {
		return nil, "", err
	}
	other := otherCore(cpus)
	two := placement{twoCPUs, []int{cpus[0]}, []int{other}}
	one := placement{oneCPU, []int{cpus[0]}, []int{cpus[0]}}
	if other == cpus[0] && (pin == "all" || pin == "two") {
		note = fmt.Sprintf("there is one CPU here, number %d: the placement %q is left out", cpus[0], twoCPUs)
	}
	if other != cpus[0] && (pin == "all" || pin == "two") {
		all = append(all, two)
	}
	if pin == "all" || pin == "one" {
		all = append(all, one)
	}
	if pin == "all" || pin == "free" {
		all = append(all, placement{Name: free})
	}
	if len(all) == 0 {
		return nil, "", fmt.Errorf("--pin two needs two CPUs, and this process may use one only")
	}
	return all, note, nil
}

// ownCPUs returns the CPUs that this process may use.
func ownCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// otherCore returns a CPU that shares no core with the first one, or else any other; the first one if there is no other.
func otherCore(cpus []int) int {
	path := filepath.Join("/sys/devices/system/cpu", fmt.Sprintf("cpu%d", cpus[0]), "topology/thread_siblings_list")
	text, err := os.ReadFile(path)
	siblings := parseCPUList(string(text))
	for _, cpu := range cpus[1:] {
		if err == nil && !siblings[cpu] {
			return cpu
		}
	}
	return cpus[len(cpus)-1]
}

// parseCPUList reads a list as in sysfs: 0,4-6.
func parseCPUList(text string) map[int]bool {
	cpus := make(map[int]bool)
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil {
			continue
		}
		for ; a <= b; a++ {
			cpus[a] = true
		}
	}
	return cpus
}

// startOn starts a command on some CPUs, or anywhere. It inherits them from the thread that forks, so that it has them before its
// own runtime counts its CPUs.
func startOn(cmd *exec.Cmd, cpus []int) error {
	if len(cpus) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pinning to CPU %v: %w", cpus, err)
	}
	err := cmd.Start()
	if back := unix.SchedSetaffinity(0, &before); err == nil && back != nil {
		return fmt.Errorf("sched_setaffinity: %w", back)
	}
	return err
}
