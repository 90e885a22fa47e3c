// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCPUList(t *testing.T) {
	for text, want := range map[string][]int{"0\n": {0}, "0,4": {0, 4}, "0-2,7": {0, 1, 2, 7}, "": nil, "x-y": nil} {
		if got := slices.Sorted(maps.Keys(parseCPUList(text))); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestPlacements(t *testing.T) {
	cpus, err := ownCPUs()
	if err != nil {
		t.Fatal(err)
	}
	all, note, err := placements("all")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	want := []string{twoCPUs, oneCPU, free}
	if len(cpus) == 1 {
		want = want[1:]
	}
	if !slices.Equal(names, want) || (note != "") != (len(cpus) == 1) {
		t.Errorf("with %d CPUs: %v, note %q", len(cpus), names, note)
	}
	for _, p := range all {
		if same := slices.Equal(p.Server, p.Client); same == (p.Name == twoCPUs) {
			t.Errorf("%+v", p)
		}
	}
}

// A child runs where it is put, and this process where it was.
func TestStartOn(t *testing.T) {
	before, err := ownCPUs()
	if err != nil {
		t.Fatal(err)
	}
	last := before[len(before)-1]
	cmd := exec.Command("sed", "-n", "s/^Cpus_allowed_list:[^0-9]*//p", "/proc/self/status")
	var out strings.Builder
	cmd.Stdout = &out
	if err := startOn(cmd, []int{last}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(maps.Keys(parseCPUList(out.String()))); !slices.Equal(got, []int{last}) {
		t.Errorf("the child may run on %v, want %d", got, last)
	}
	if after, err := ownCPUs(); err != nil || !slices.Equal(after, before) {
		t.Errorf("this process may run on %v, %v; before %v", after, err, before)
	}
}
