// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/ismfs/ismfs/bpf"
)

// What a socket loses where the SMC option cannot be put into its SYN.
const staysTCP = "sockets stay TCP (DMBs that programs use themselves work all the same)"

// mountLine is what the checks need of a line of mountinfo.
type mountLine struct {
	point, fsType string
	superOptions  []string
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
		table = append(table, mountLine{point: f[4], fsType: g[0], superOptions: strings.Split(g[2], ",")})
	}
	return table
}

// A bpfLook is what bpf.Probe has found.
type bpfLook struct {
	bpf.Report
	err error
}

var lookAtBPF = sync.OnceValue(func() bpfLook {
	r, err := bpf.Probe()
	return bpfLook{r, err}
})

func judgeCgroup(l bpfLook) finding {
	switch {
	case l.Cgroup == "" && errors.Is(l.err, bpf.ErrNoCgroup2):
		return finding{
			Status: statusWarn, Found: "no cgroup v2 hierarchy is mounted", sockets: true,
			Costs: "the eBPF programs have no cgroup to be attached to: " + staysTCP,
			Mend:  "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
		}
	case l.Cgroup == "":
		return finding{
			Status: statusWarn, Found: firstLine(l.err), sockets: true,
			Costs: staysTCP, Mend: "mount /proc: mount -t proc proc /proc",
		}
	case !l.WholeHost:
		return finding{
			Status: statusWarn, Found: l.Cgroup + ", which shows a container's part of the hierarchy",
			Costs: "only the sockets of this container's own processes are covered; those of the host and of other containers stay TCP",
			Mend:  "run the daemon on the host, or its container with --cgroupns=host and the host's /sys/fs/cgroup",
		}
	}
	return okay("%s: the sockets of all processes of the host are covered", l.Cgroup)
}

func judgeBPF(l bpfLook) finding {
	f := finding{Status: statusWarn, Found: "the programs cannot be loaded", Costs: staysTCP, sockets: true}
	if l.err != nil {
		f.Found = firstLine(l.err)
	}
	switch {
	case l.Loads:
		return okay("sock_ops and cgroup sockopt programs load, with TCP header options and socket storage")
	case errors.Is(l.err, bpf.ErrNoCgroup2):
		f.Found, f.Mend = "not tried without a cgroup to attach to", "mend the other findings first, then look again"
	case errors.Is(l.err, os.ErrPermission), errors.Is(l.err, bpf.ErrNotPermitted):
		f.Mend = "run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN in the initial user namespace; look whether the kernel is locked down (/sys/kernel/security/lockdown)"
	case errors.Is(l.err, bpf.ErrNotSupported):
		f.Mend = "boot a kernel of version 6.12 or newer with CONFIG_BPF_SYSCALL=y, CONFIG_CGROUP_BPF=y and CONFIG_INET=y"
	default:
		f.Mend = "mend the other findings first, then look again"
	}
	return f
}

func judgeBPFFS(l bpfLook) finding {
	if l.BPFFS {
		return okay("mounted on /sys/fs/bpf")
	}
	return okay("none on /sys/fs/bpf yet: ismfs mount mounts one, to keep the eBPF programs in")
}

// judgeSet looks at the programs that are attached, and who needs them.
func judgeSet(l bpfLook) finding {
	switch {
	case l.Loads && l.err != nil:
		return finding{
			Status: statusWarn, Found: firstLine(l.err), sockets: true, Costs: staysTCP,
			Mend: "as the finding says; then unmount and mount the devices anew",
		}
	case !l.Loads:
		return unseenSet(l.err)
	case l.Set == "":
		return okay("no programs are attached; ismfs mount attaches them")
	}
	var living []string
	for _, d := range l.Devices {
		if d.Alive {
			living = append(living, d.Tag.String())
		}
	}
	found := fmt.Sprintf("%s: %s; %d sockets listen or have not asked", l.Set, listTags("devices", living), l.Waiting)
	if !l.Attached {
		found += "; not attached, since no process uses a device"
	}
	if dead := len(l.Devices) - len(living); dead > 0 { // they stay as long as anybody lives, and gather
		found += fmt.Sprintf("; %d of dead daemons", dead)
	}
	if len(living) > 0 {
		return okay("%s", found)
	}
	if !l.Attached {
		return okay("%s", found)
	}
	return finding{
		Status: statusWarn, Found: found,
		Costs: "nobody has a device for them, and the programs take a fraction of a microsecond of each setsockopt and getsockopt of any process",
		Mend:  "ismfs mount --replace on the mount of the dead daemon, or ismfs umount, also of where one was; they go with the last device, when no socket needs them",
	}
}

// unseenSet is the finding of who cannot load the programs, and so cannot look at those that are attached.
func unseenSet(err error) finding {
	f := finding{
		Status: statusWarn, Found: "cannot be seen from here: the programs could not be loaded to look", sockets: true,
		Costs: "it is not known here whether programs are attached, and for which devices (the mounts below say whether sockets can use them)",
		Mend:  "mend the other findings first, then look again",
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, bpf.ErrNotPermitted) {
		f.Found = "cannot be seen by this user"
		f.Mend = "look as root: sudo ismfs doctor"
	}
	return f
}

func listTags(what string, tags []string) string {
	if len(tags) == 0 {
		return "no " + what
	}
	const most = 8
	more := ""
	if n := len(tags) - most; n > 0 {
		tags, more = tags[:most], fmt.Sprintf(" and %d more", n)
	}
	return what + " " + strings.Join(tags, ", ") + more
}
