// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// What a socket loses where the SMC option cannot be put into its SYN.
const staysTCP = "sockets stay TCP (DMBs that programs use themselves work all the same)"

// mountLine is what the checks need of a line of mountinfo.
type mountLine struct {
	root, point, fsType string
	superOptions        []string
}

func readMountinfo() ([]mountLine, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(text)), nil
}

// parseMountinfo reads the form of proc_pid_mountinfo(5). Lines that are none are left out.
func parseMountinfo(text string) []mountLine {
	var table []mountLine
	for line := range strings.Lines(text) {
		before, after, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Split(before, " "), strings.Split(after, " ")
		if !found || len(f) < 6 || len(g) < 3 {
			continue
		}
		table = append(table, mountLine{root: f[3], point: f[4], fsType: g[0], superOptions: strings.Split(g[2], ",")})
	}
	return table
}

// cgroupFacts are where the cgroup v2 hierarchy is mounted and how much of it.
type cgroupFacts struct {
	point    string // empty: nowhere
	hostRoot bool   // its root is the host's, not that of a container
	err      error
}

func lookForCgroup2() cgroupFacts {
	table, err := readMountinfo()
	if err != nil {
		return cgroupFacts{err: err}
	}
	var f cgroupFacts
	for _, m := range table {
		if m.fsType != "cgroup2" {
			continue
		}
		if host := isRootCgroup(m.point); host || f.point == "" {
			f.point, f.hostRoot = m.point, host
		}
		if f.hostRoot {
			break
		}
	}
	return f
}

// isRootCgroup tells the root of the hierarchy from every other cgroup: it alone has no cgroup.type.
func isRootCgroup(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return errors.Is(err, os.ErrNotExist)
}

func judgeCgroup(f cgroupFacts) finding {
	switch {
	case f.err != nil:
		return finding{
			Status: statusWarn, Found: f.err.Error(), sockets: true,
			Costs: staysTCP, Mend: "mount /proc: mount -t proc proc /proc",
		}
	case f.point == "":
		return finding{
			Status: statusWarn, Found: "no cgroup v2 hierarchy is mounted", sockets: true,
			Costs: "the eBPF programs have no cgroup to be attached to: " + staysTCP,
			Mend:  "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
		}
	case !f.hostRoot:
		return finding{
			Status: statusWarn, Found: f.point + ", which shows a container's part of the hierarchy",
			Costs: "only the sockets of this container's own processes are covered; those of the host and of other containers stay TCP",
			Mend:  "run the daemon on the host, or its container with --cgroupns=host and the host's /sys/fs/cgroup",
		}
	}
	return okay("%s, the root of the hierarchy: the sockets of all processes are covered", f.point)
}

// bpfFeature is one thing that the programs use, and what trying it gave.
type bpfFeature struct {
	name  string
	extra bool // they can do without
	err   error
}

func tryBPF() []bpfFeature {
	tried := []bpfFeature{
		{name: "sock_ops programs", err: features.HaveProgramType(ebpf.SockOps)},
		{name: "cgroup sockopt programs", err: features.HaveProgramType(ebpf.CGroupSockopt)},
		{name: "socket storage", err: features.HaveMapType(ebpf.SkStorage)},
	}
	for _, h := range []struct {
		program ebpf.ProgramType
		helper  asm.BuiltinFunc
		name    string
	}{
		{ebpf.SockOps, asm.FnReserveHdrOpt, "bpf_reserve_hdr_opt"},
		{ebpf.SockOps, asm.FnStoreHdrOpt, "bpf_store_hdr_opt"},
		{ebpf.SockOps, asm.FnLoadHdrOpt, "bpf_load_hdr_opt"},
		{ebpf.SockOps, asm.FnSkStorageGet, "bpf_sk_storage_get in sock_ops"},
		{ebpf.CGroupSockopt, asm.FnSkStorageGet, "bpf_sk_storage_get in sockopt"},
	} {
		tried = append(tried, bpfFeature{name: h.name, err: features.HaveProgramHelper(h.program, h.helper)})
	}
	return append(tried, bpfFeature{"bpf_setsockopt in setsockopt programs", true, trySetsockopt()})
}

// trySetsockopt asks for bpf_setsockopt in programs for setsockopt; package features knows only those for getsockopt.
func trySetsockopt() error {
	p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockopt, AttachType: ebpf.AttachCGroupSetsockopt, License: "GPL",
		Instructions: asm.Instructions{asm.FnSetsockopt.Call(), asm.LoadImm(asm.R0, 0, asm.DWord), asm.Return()},
	}, ebpf.ProgramOptions{LogDisabled: true})
	switch {
	case err == nil:
		return p.Close()
	case errors.Is(err, unix.EACCES): // the verifier knows the helper, and misses its arguments
		return nil
	case errors.Is(err, unix.EINVAL):
		return ebpf.ErrNotSupported
	}
	return err
}

func judgeBPF(tried []bpfFeature) finding {
	var lacking, extras []string
	for _, t := range tried {
		switch {
		case t.err == nil:
		case errors.Is(t.err, os.ErrPermission):
			return finding{
				Status: statusWarn, Found: t.name + ": operation not permitted", sockets: true, Costs: staysTCP,
				Mend: "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON in the initial user namespace; look whether the kernel is locked down (/sys/kernel/security/lockdown)",
			}
		case !errors.Is(t.err, ebpf.ErrNotSupported):
			text, _, _ := strings.Cut(t.err.Error(), "\n")
			return finding{
				Status: statusWarn, Found: fmt.Sprintf("%s: not known: %s", t.name, text), sockets: true, Costs: staysTCP,
				Mend: "mend the other findings first, then look again",
			}
		case t.extra:
			extras = append(extras, t.name)
		default:
			lacking = append(lacking, t.name)
		}
	}
	switch {
	case len(lacking) > 0:
		return finding{
			Status: statusWarn, Found: "this kernel does not have " + strings.Join(lacking, ", "), sockets: true, Costs: staysTCP,
			Mend: "boot a kernel with CONFIG_BPF_SYSCALL=y, CONFIG_CGROUP_BPF=y and CONFIG_INET=y",
		}
	case len(extras) > 0:
		return finding{
			Status: statusWarn, Found: "programs load, without " + strings.Join(extras, ", "),
			Costs: "a socket that listens already cannot be marked: it stays TCP until it listens anew",
			Mend:  "a newer kernel has it",
		}
	}
	return okay("sock_ops and cgroup sockopt programs load, with TCP header options and socket storage")
}

const bpffsPath = "/sys/fs/bpf"

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

func judgeBPFFS(mounted bool) finding {
	if mounted {
		return okay("mounted on %s", bpffsPath)
	}
	return finding{
		Status: statusWarn, Found: "no BPF file system on " + bpffsPath, sockets: true,
		Costs: "the eBPF programs, kept there so that they outlive a daemon, have no place: " + staysTCP,
		Mend:  fmt.Sprintf("mount -t bpf bpf %s", bpffsPath),
	}
}
