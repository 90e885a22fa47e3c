// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
)

// thpPath is where the kernel keeps its settings of huge pages.
const thpPath = "/sys/kernel/mm/transparent_hugepage"

// hugePage is the size that MADV_COLLAPSE makes on x86-64 and on arm64 with base pages of 4 KiB.
const hugePage = 2 << 20

func judgeHugePages(err error) finding {
	if err == nil {
		return okay("MADV_COLLAPSE made a %s page of a memfd: DMBs from there up get them with dmb_type 0", humanBytes(hugePage))
	}
	return finding{
		Status: statusWarn, Found: fmt.Sprintf("no %s page of a memfd: %v", humanBytes(hugePage), err),
		Costs: fmt.Sprintf("DMBs of %s and more get smaller pages with dmb_type 0", humanBytes(hugePage)),
		Mend:  "free or compact memory (echo 1 > /proc/sys/vm/compact_memory); a kernel of version 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE and CONFIG_SHMEM can do it",
	}
}

// shmemPolicies are the kernel's settings of transparent huge pages for memfds.
type shmemPolicies struct {
	top    string           // shmem_enabled
	bySize map[int64]string // bytes of a page: hugepages-*kB/shmem_enabled, from Linux 6.11 on
}

func readShmemPolicies(dir string) shmemPolicies {
	p := shmemPolicies{top: chosen(readText(filepath.Join(dir, "shmem_enabled"))), bySize: make(map[int64]string)}
	files, err := filepath.Glob(filepath.Join(dir, "hugepages-*kB", "shmem_enabled"))
	if err != nil {
		return p
	}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(name, "hugepages-"), "kB"), 10, 32)
		if err == nil {
			p.bySize[kb<<10] = chosen(readText(f))
		}
	}
	return p
}

// readText returns a file's text, and none if it cannot be read: then the kernel does not have the setting.
func readText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// chosen returns the word in brackets of a setting such as "always within_size advise [never]".
func chosen(setting string) string {
	_, rest, _ := strings.Cut(setting, "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// given returns the page sizes under 2 MiB that a memfd gets when its owner asks by MADV_HUGEPAGE, the largest first.
func (p shmemPolicies) given() []int64 {
	var sizes []int64
	for size, policy := range p.bySize {
		if policy == "inherit" {
			policy = p.top
		}
		switch policy {
		case "always", "within_size", "advise", "force":
			if size < hugePage {
				sizes = append(sizes, size)
			}
		}
	}
	slices.SortFunc(sizes, func(a, b int64) int { return int(b - a) })
	return sizes
}

func judgeMultiSize(p shmemPolicies) finding {
	if sizes := p.given(); len(sizes) > 0 {
		names := make([]string, len(sizes))
		for i, s := range sizes {
			names[i] = humanBytes(uint64(s))
		}
		return okay("DMBs under %s can get pages of %s with dmb_type 0", humanBytes(hugePage), strings.Join(names, ", "))
	}
	f := finding{
		Status: statusWarn, Found: fmt.Sprintf("off for memfds: DMBs under %s get pages of 4 KiB, whatever dmb_type says", humanBytes(hugePage)),
		Costs: "first connections with buffers of 1 MiB mostly take half as long again (docs/performance.md); nothing else that could be measured",
		Mend:  fmt.Sprintf("echo advise > %s/hugepages-1024kB/shmem_enabled", thpPath),
	}
	if len(p.bySize) == 0 {
		f.Found = fmt.Sprintf("not in this kernel: DMBs under %s get pages of 4 KiB, whatever dmb_type says", humanBytes(hugePage))
		f.Mend = "a kernel of version 6.11 or newer with CONFIG_TRANSPARENT_HUGEPAGE has them"
	}
	return f
}

// descriptorFacts are how many files the daemon can have open.
type descriptorFacts struct {
	hard     uint64 // RLIMIT_NOFILE
	most     uint64 // what the hard limit can be raised to (fs.nr_open)
	mayRaise bool   // CAP_SYS_RESOURCE
	err      error
}

func ownDescriptors() descriptorFacts {
	var lim unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	f := descriptorFacts{hard: lim.Max, err: err}
	f.mayRaise = ownPrivileges().has(unix.CAP_SYS_RESOURCE)
	f.most, _ = strconv.ParseUint(strings.TrimSpace(readText("/proc/sys/fs/nr_open")), 10, 64)
	return f
}

// wantedFiles is how many descriptors the daemon wants: the device's and some of its own.
func wantedFiles(l device.Limits) uint64 { return uint64(l.Files() + 1024) }

func judgeDescriptors(f descriptorFacts) finding {
	want := wantedFiles(device.DefaultLimits(0))
	bad := finding{
		Status: statusWarn,
		Found:  fmt.Sprintf("hard limit %d; %d DMBs need %d", f.hard, device.DefaultDMBs, want),
		Costs:  "registering fails with ENFILE before there are as many DMBs as max_dmbs allows",
		Mend:   fmt.Sprintf("ulimit -Hn %d, or LimitNOFILE=%[1]d in the unit", want),
	}
	switch {
	case f.err != nil:
		bad.Found = "RLIMIT_NOFILE: " + f.err.Error()
		return bad
	case f.hard >= want:
		return okay("hard limit %d; %d DMBs need %d", f.hard, device.DefaultDMBs, want)
	case f.mayRaise && f.most >= want:
		return okay("hard limit %d; %d DMBs need %d, to which the daemon raises it", f.hard, device.DefaultDMBs, want)
	}
	return bad
}

func judgeMemory(ram int64, err error) finding {
	if err != nil {
		return finding{
			Status: statusWarn, Found: err.Error(), Costs: "the daemon does not start: it cannot set its limits",
			Mend: "allow sysinfo in the seccomp profile under which the daemon runs",
		}
	}
	l := device.DefaultLimits(ram)
	text := fmt.Sprintf("%s of RAM: at most %s for all DMBs of a device, %s for those of one uid",
		humanBytes(uint64(ram)), humanBytes(uint64(l.MaxBytes)), humanBytes(uint64(l.MaxBytesPerUID)))
	if l.MaxBytesPerUID < l.MaxDMBSize {
		return finding{
			Status: statusWarn, Found: text,
			Costs: fmt.Sprintf("nobody can register the largest DMB, %s", humanBytes(uint64(l.MaxDMBSize))),
			Mend:  "ismfs mount --max-bytes or --max-dmb-size",
		}
	}
	return okay("%s", text)
}
