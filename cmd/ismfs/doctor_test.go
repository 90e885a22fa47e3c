// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf"
	"github.com/ismfs/ismfs/bpf/smcopt"
	ismfs "github.com/ismfs/ismfs/fs"
	"github.com/ismfs/ismfs/tree"
)

// A doctorCase is a finding and what is expected of it.
type doctorCase struct {
	name      string
	got       finding
	status    string
	privilege bool
	says      string // a part of what was found, its cost or its mending
}

func TestJudgements(t *testing.T) {
	all := uint64(1)<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE
	host := privileges{effective: all, userNS: initialUserNS, pidNS: initialPIDNS}
	with := func(change func(*privileges)) privileges {
		p := host
		change(&p)
		return p
	}
	goodProc := procFacts{isProc: true, self: "42", pid: 42, shown: 9, ptrace: true}
	proc := func(change func(*procFacts)) procFacts {
		p := goodProc
		change(&p)
		return p
	}
	off := shmemPolicies{top: "never", bySize: map[int64]string{64 << 10: "never", 2 << 20: "inherit"}}
	cases := []doctorCase{
		{"kernel new", judgeKernel("6.10.0-rc1"), statusOK, false, "6.10.0-rc1"},
		{"kernel just enough", judgeKernel("6.9"), statusOK, false, "6.9"},
		{"kernel old", judgeKernel("6.8.0-45-generic"), statusMissing, false, "6.9"},
		{"kernel very old", judgeKernel("5.15.0"), statusMissing, false, "5.15.0"},
		{"kernel of the future", judgeKernel("7.0.1"), statusOK, false, "7.0.1"},
		{"kernel unknown", judgeKernel("huh"), statusWarn, false, `"huh"`},

		{"fuse", judgeFUSE(nil), statusOK, false, "/dev/fuse"},
		{"fuse absent", judgeFUSE(unix.ENOENT), statusMissing, false, "modprobe fuse"},
		{"fuse not loaded", judgeFUSE(unix.ENODEV), statusMissing, false, "modprobe fuse"},
		{"fuse forbidden", judgeFUSE(unix.EACCES), statusMissing, true, "as root"},
		{"fuse kept away by a device cgroup", judgeFUSE(unix.EPERM), statusMissing, true, "--device"},

		{"trial", judgeTrial(nil), statusOK, false, "64 KiB"},
		{"trial without passthrough", judgeTrial(fmt.Errorf("%w: no", ismfs.ErrNoPassthrough)), statusMissing, false, "CONFIG_FUSE_PASSTHROUGH"},
		{"trial in a user namespace", judgeTrial(fmt.Errorf("%w: %w", ismfs.ErrNoPassthrough, unix.EPERM)), statusMissing, true, "root"},
		{"trial unprivileged", judgeTrial(fmt.Errorf("unshare: %w", unix.EPERM)), statusMissing, true, "unshare"},
		{"trial without fuse", judgeTrial(fmt.Errorf("%w: %w", ismfs.ErrNoFUSE, unix.ENOENT)), statusMissing, false, "modprobe"},
		{"no trial", judgeTrial(fmt.Errorf("%w: %w", errNotTried, unix.EROFS)), statusWarn, false, "TMPDIR"},
		{"trial broken", judgeTrial(errors.New("line one\nline two")), statusMissing, false, "line one line two"},

		{"privileges", judgePrivileges(host), statusOK, false, "CAP_SYS_ADMIN"},
		{"no sysadmin", judgePrivileges(with(func(p *privileges) { p.effective = 1 << unix.CAP_SYS_PTRACE; p.uid = 1000 })), statusMissing, true, "uid 1000 without CAP_SYS_ADMIN"},
		{"no ptrace", judgePrivileges(with(func(p *privileges) { p.effective = 1 << unix.CAP_SYS_ADMIN })), statusMissing, true, "CAP_SYS_PTRACE"},
		{"user namespace", judgePrivileges(with(func(p *privileges) { p.userNS = 1 })), statusMissing, true, "user namespace of its own"},
		{"privileges unknown", judgePrivileges(privileges{err: unix.ENOENT}), statusMissing, true, "mount -t proc"},
		{"pid namespace", judgePIDNamespace(host), statusOK, false, "initial"},
		{"pid namespace of a container", judgePIDNamespace(with(func(p *privileges) { p.pidNS = 1 })), statusWarn, false, "pid 0"},

		{"proc", judgeProc(goodProc), statusOK, false, "9 in all"},
		{"proc absent", judgeProc(proc(func(f *procFacts) { f.isProc = false })), statusMissing, false, "mount -t proc"},
		{"proc of others", judgeProc(proc(func(f *procFacts) { f.self = "7" })), statusMissing, false, "another pid namespace"},
		{"proc forbidden", judgeProc(proc(func(f *procFacts) { f.initErr, f.ptrace = unix.EACCES, false })), statusMissing, true, "CAP_SYS_PTRACE"},
		{"proc hidden", judgeProc(proc(func(f *procFacts) {
			f.initErr, f.ptrace, f.options = unix.ENOENT, false, []string{"rw", "hidepid=invisible"}
		})), statusMissing, true, "remount,hidepid=0"},
		{"proc hidden from others", judgeProc(proc(func(f *procFacts) { f.options = []string{"hidepid=2"} })), statusOK, false, "hidepid=2"},
		{"proc with one process closed", judgeProc(proc(func(f *procFacts) { f.initErr, f.closed = unix.EACCES, []string{"1"} })), statusWarn, false, "pid 1"},

		{"pidfd", judgePidfd(pidfdFacts{}), statusOK, false, "PIDFD_GET_INFO"},
		{"pidfd forbidden", judgePidfd(pidfdFacts{open: unix.EPERM, thread: unix.EPERM, info: unix.EPERM}), statusMissing, false, "seccomp"},
		{"pidfd of processes only", judgePidfd(pidfdFacts{thread: unix.EINVAL, info: unix.ENOTTY}), statusWarn, false, "PIDFD_THREAD"},
		{"pidfd without info", judgePidfd(pidfdFacts{info: unix.ENOTTY}), statusWarn, false, "6.13"},

		{"memfd", judgeMemfd(memfdFacts{}), statusOK, false, "MFD_NOEXEC_SEAL"},
		{"memfd only noexec", judgeMemfd(memfdFacts{plain: unix.EACCES}), statusOK, false, "MFD_NOEXEC_SEAL"},
		{"memfd old", judgeMemfd(memfdFacts{noexec: unix.EINVAL}), statusWarn, false, "6.3"},
		{"memfd forbidden", judgeMemfd(memfdFacts{plain: unix.EPERM, noexec: unix.EPERM}), statusMissing, false, "seccomp"},

		{"cgroup", judgeCgroup(bpfLook{Report: bpf.Report{Cgroup: "/sys/fs/cgroup/unified", WholeHost: true}}), statusOK, false, "/sys/fs/cgroup/unified"},
		{"cgroup of a container", judgeCgroup(bpfLook{Report: bpf.Report{Cgroup: "/sys/fs/cgroup"}}), statusWarn, false, "container"},
		{"cgroup absent", judgeCgroup(bpfLook{err: bpf.ErrNoCgroup2}), statusWarn, false, "mount -t cgroup2"},
		{"cgroup unknown", judgeCgroup(bpfLook{err: os.ErrNotExist}), statusWarn, false, "mount -t proc"},

		{"ebpf", judgeBPF(bpfLook{Report: bpf.Report{Loads: true}}), statusOK, false, "sock_ops"},
		{"ebpf though another set is there", judgeBPF(bpfLook{Report: bpf.Report{Loads: true}, err: bpf.ErrOtherSet}), statusOK, false, "sock_ops"},
		{"ebpf forbidden", judgeBPF(bpfLook{err: fmt.Errorf("%w: loading", bpf.ErrNotPermitted)}), statusWarn, false, "CAP_BPF"},
		{"ebpf unknown", judgeBPF(bpfLook{err: errors.New("odd\nlog")}), statusWarn, false, "odd"},
		{"ebpf absent", judgeBPF(bpfLook{err: fmt.Errorf("%w: invalid\nlog", bpf.ErrNotSupported)}), statusWarn, false, "CONFIG_CGROUP_BPF"},
		{"ebpf without cgroups", judgeBPF(bpfLook{err: bpf.ErrNoCgroup2}), statusWarn, false, "not tried"},
		{"bpffs", judgeBPFFS(bpfLook{Report: bpf.Report{BPFFS: true}}), statusOK, false, "/sys/fs/bpf"},
		{"bpffs absent", judgeBPFFS(bpfLook{}), statusOK, false, "ismfs mount mounts one"},
		{"no programs", judgeSet(bpfLook{Report: bpf.Report{Loads: true}}), statusOK, false, "no programs are attached"},
		{"programs that this user cannot see", judgeSet(bpfLook{err: fmt.Errorf("%w: loading", bpf.ErrNotPermitted)}), statusWarn, false, "sudo ismfs doctor"},
		{"programs that cannot be loaded", judgeSet(bpfLook{err: bpf.ErrNotSupported}), statusWarn, false, "cannot be seen"},
		{"programs of others", judgeSet(bpfLook{Report: bpf.Report{Loads: true}, err: bpf.ErrOtherSet}), statusWarn, false, "another set"},
		{"programs", judgeSet(set(2, true, false)), statusOK, false, "/v2: devices 01000000000000; 2 sockets listen or have not asked; 1 of dead daemons"},
		{"programs of many", judgeSet(set(0, slices.Repeat([]bool{true}, 11)...)), statusOK, false, "08000000000000 and 3 more"},
		{"programs of the dead", judgeSet(set(1, make([]bool, 300)...)), statusWarn, false, "no devices; 1 sockets listen or have not asked; 300 of dead daemons"},
		{"programs of nobody", judgeSet(set(1)), statusWarn, false, "--replace"},

		{"huge pages", judgeHugePages(nil), statusOK, false, "2 MiB"},
		{"no huge pages", judgeHugePages(unix.EINVAL), statusWarn, false, "compact_memory"},
		{"multi-size off", judgeMultiSize(off), statusWarn, false, "echo advise"},
		{"multi-size unknown", judgeMultiSize(shmemPolicies{}), statusWarn, false, "6.11"},
		{"multi-size on", judgeMultiSize(shmemPolicies{bySize: map[int64]string{64 << 10: "advise"}}), statusOK, false, "64 KiB"},

		{"descriptors", judgeDescriptors(descriptorFacts{hard: 524288}), statusOK, false, "524288"},
		{"descriptors to be raised", judgeDescriptors(descriptorFacts{hard: 4096, most: 1 << 20, mayRaise: true}), statusOK, false, "raises"},
		{"too few descriptors", judgeDescriptors(descriptorFacts{hard: 4096, most: 1 << 20}), statusWarn, false, "LimitNOFILE=12048"},

		{"memory", judgeMemory(8<<30, nil), statusOK, false, "2 GiB"},
		{"little memory", judgeMemory(64<<20, nil), statusWarn, false, "16 MiB"},

		{"no mounts", judgeMounts(mountFacts{}), statusOK, false, "none"},
		{"a mount", judgeMounts(mounts(mountState{"/m", nil, tree.Active, true})), statusOK, false, "/m"},
		{"a dead mount", judgeMounts(mounts(mountState{"/m", nil, tree.Active, true}, mountState{point: "/d", err: tree.ErrDeadMount})), statusWarn, false, "--replace /d"},
		{"a stuck mount", judgeMounts(mounts(mountState{point: "/s", err: errStuck})), statusWarn, false, "kill -CONT"},
		{"a mount of another user", judgeMounts(mounts(mountState{point: "/o", err: unix.EACCES})), statusWarn, false, "/o (not for this user)"},
		{"a mount that drains", judgeMounts(mounts(mountState{"/m", nil, tree.Draining, true})), statusWarn, false, "/m (draining)"},
		{"a mount that is off", judgeMounts(mounts(mountState{"/m", nil, tree.Inactive, false})), statusWarn, false, "echo 1 > /m/devices/loopback-ism/active"},
		{"a mount without sockets", judgeMounts(mounts(mountState{"/a", nil, tree.Active, true}, mountState{"/m", nil, tree.Active, false})), statusWarn, false, "/a, /m (without sockets)"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := c.got
			if f.Status != c.status || f.privilege != c.privilege {
				t.Errorf("status %q, privilege %v; want %q, %v", f.Status, f.privilege, c.status, c.privilege)
			}
			if !strings.Contains(f.Found+f.Costs+f.Mend, c.says) {
				t.Errorf("%+v does not say %q", f, c.says)
			}
			if healthy := f.Status == statusOK; healthy != (f.Costs == "") || healthy != (f.Mend == "") {
				t.Errorf("%+v: costs and mend belong to what is not ok, and only there", f)
			}
			if strings.Contains(f.Found+f.Costs+f.Mend, "\n") {
				t.Errorf("%+v: more than one line", f)
			}
		})
	}
}

func mounts(states ...mountState) mountFacts { return mountFacts{mounts: states} }

// set is a look at programs with devices whose daemons live or not.
func set(waiting int, alive ...bool) bpfLook {
	l := bpfLook{Report: bpf.Report{Loads: true, Set: "/sys/fs/bpf/ismfs/v2", Attached: true, Waiting: waiting}}
	for i, a := range alive {
		l.Devices = append(l.Devices, bpf.Device{Tag: smcopt.Tag{byte(i + 1)}, Alive: a})
	}
	return l
}

func TestVerdict(t *testing.T) {
	ok := finding{Name: "a", Status: statusOK}
	warn := finding{Name: "b", Status: statusWarn}
	tcp := finding{Name: "c", Status: statusWarn, sockets: true}
	privilege := finding{Name: "d", Status: statusMissing, privilege: true}
	missing := finding{Name: "e", Status: statusMissing}
	for _, c := range []struct {
		findings []finding
		code     int
		says     string
	}{
		{[]finding{ok}, exitOK, "programs can use it."},
		{[]finding{ok, warn}, exitOK, "look at: b."},
		{[]finding{ok, warn, tcp}, exitOK, "sockets would stay TCP. To look at: b, c."},
		{[]finding{ok, privilege, warn}, exitNotPermitted, "privilege is missing (d)"},
		{[]finding{missing, privilege}, exitUnsupported, "e, d missing"},
	} {
		code, verdict := judge(c.findings)
		if code != c.code || !strings.Contains(verdict, c.says) {
			t.Errorf("judge(%v) = %d, %q; want %d and %q", c.findings, code, verdict, c.code, c.says)
		}
	}
}

func TestPrintFindings(t *testing.T) {
	findings := []finding{
		{Name: "kernel", Status: statusOK, Found: "Linux 6.9"},
		{Name: "bpffs", Status: statusWarn, Found: "none", Costs: "sockets", Mend: "mount it", sockets: true},
	}
	var text bytes.Buffer
	if err := printFindings(&text, findings, "So it is.", false); err != nil {
		t.Fatal(err)
	}
	const want = `ok       kernel            Linux 6.9
warn     bpffs             none
         costs: sockets
         mend:  mount it

So it is.
`
	if text.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", text.String(), want)
	}

	text.Reset()
	if err := printFindings(&text, findings, "", true); err != nil {
		t.Fatal(err)
	}
	var list []map[string]string
	if err := json.Unmarshal(text.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	wantJSON := []map[string]string{
		{"name": "kernel", "status": "ok", "found": "Linux 6.9", "costs": "", "mend": ""},
		{"name": "bpffs", "status": "warn", "found": "none", "costs": "sockets", "mend": "mount it"},
	}
	if !reflect.DeepEqual(list, wantJSON) {
		t.Errorf("JSON %v, want %v", list, wantJSON)
	}
}

func TestCheckNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range checks {
		if c.name == "" || seen[c.name] {
			t.Errorf("check %q: empty or twice", c.name)
		}
		seen[c.name] = true
	}
}

func TestParseMountinfo(t *testing.T) {
	const text = `22 27 0:21 / /proc rw,relatime - proc proc rw,hidepid=2
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw,nsdelegate
no mount
36 35 98:0 /a /b rw master:1 propagate_from:2 - ext3 /dev/root rw
`
	got := parseMountinfo(text)
	want := []mountLine{
		{"/proc", "proc", []string{"rw", "hidepid=2"}},
		{"/sys/fs/cgroup/unified", "cgroup2", []string{"rw", "nsdelegate"}},
		{"/b", "ext3", []string{"rw"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if o := hidingOptions(got[0].superOptions); !slices.Equal(o, []string{"hidepid=2"}) {
		t.Errorf("hiding options %v", o)
	}
	if o := hidingOptions([]string{"rw", "hidepid=0", "hidepid=off", "subset=pid"}); !slices.Equal(o, []string{"subset=pid"}) {
		t.Errorf("hiding options %v", o)
	}
}

func TestShmemPolicies(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("shmem_enabled", "always within_size [advise] never deny force\n")
	write("hugepages-16kB/shmem_enabled", "always inherit within_size advise [never]\n")
	write("hugepages-64kB/shmem_enabled", "always [inherit] within_size advise never\n")
	write("hugepages-256kB/shmem_enabled", "[always] inherit within_size advise never\n")
	write("hugepages-2048kB/shmem_enabled", "always [inherit] within_size advise never\n")
	write("hugepages-oddkB/shmem_enabled", "[always]\n")
	p := readShmemPolicies(dir)
	if got, want := p.given(), []int64{256 << 10, 64 << 10}; !slices.Equal(got, want) {
		t.Errorf("given %v, want %v", got, want)
	}
	if p := readShmemPolicies(filepath.Join(dir, "none")); p.top != "" || len(p.given()) != 0 {
		t.Errorf("of a kernel without: %v", p)
	}
}

func TestTryCollapse(t *testing.T) {
	if err := tryCollapse(); err != nil {
		t.Skipf("this kernel makes no huge page now: %v", err)
	}
}
