// SPDX-License-Identifier: Apache-2.0

package main

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

// Inode numbers of the initial namespaces (PROC_USER_INIT_INO, PROC_PID_INIT_INO).
const (
	initialUserNS = 0xEFFFFFFD
	initialPIDNS  = 0xEFFFFFFC
)

// privileges are who we are. err says why this is not known.
type privileges struct {
	uid       int
	effective uint64 // capabilities
	userNS    uint64
	pidNS     uint64
	err       error
}

func (p privileges) has(capability int) bool { return p.effective&(1<<capability) != 0 }

func ownPrivileges() privileges {
	p := privileges{uid: os.Geteuid()}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if p.err = unix.Capget(&hdr, &data[0]); p.err != nil {
		return p
	}
	p.effective = uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	if p.userNS, p.err = inodeOf("/proc/self/ns/user"); p.err != nil {
		return p
	}
	p.pidNS, p.err = inodeOf("/proc/self/ns/pid")
	return p
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

func judgePrivileges(p privileges) finding {
	missing := finding{
		Status: statusMissing, privilege: true,
		Costs: "no device: FUSE passthrough needs CAP_SYS_ADMIN in the initial user namespace",
	}
	switch {
	case p.err != nil:
		missing.Found = p.err.Error()
		missing.Mend = "mount /proc: mount -t proc proc /proc"
		return missing
	case p.userNS != initialUserNS:
		missing.Found = fmt.Sprintf("uid %d of a user namespace of its own (%d)", p.uid, p.userNS)
		missing.Mend = "run the daemon on the host, outside of rootless containers and user namespaces; its clients may be inside (docs/containers.md)"
		return missing
	case !p.has(unix.CAP_SYS_ADMIN):
		missing.Found = fmt.Sprintf("uid %d without CAP_SYS_ADMIN", p.uid)
		missing.Mend = "run as root: sudo ismfs mount DIR; in a container: docker run --cap-add SYS_ADMIN --cap-add SYS_PTRACE"
		return missing
	case !p.has(unix.CAP_SYS_PTRACE):
		missing.Found = fmt.Sprintf("uid %d with CAP_SYS_ADMIN in the initial user namespace, without CAP_SYS_PTRACE", p.uid)
		missing.Costs = "the daemon cannot tell who a process is that has another uid or more capabilities: it may not register or attach (EACCES)"
		missing.Mend = "give the daemon CAP_SYS_PTRACE too (docker run --cap-add SYS_PTRACE; CapabilityBoundingSet= in a unit)"
		return missing
	}
	return okay("uid %d with CAP_SYS_ADMIN and CAP_SYS_PTRACE in the initial user namespace", p.uid)
}

func judgePIDNamespace(p privileges) finding {
	switch {
	case p.err != nil:
		return finding{
			Status: statusMissing, Found: p.err.Error(), privilege: true,
			Costs: "the daemon cannot tell who its callers are", Mend: "mount /proc: mount -t proc proc /proc",
		}
	case p.pidNS != initialPIDNS:
		return finding{
			Status: statusWarn, Found: fmt.Sprintf("a pid namespace of its own (%d), as in a container", p.pidNS),
			Costs: "processes outside of it appear as pid 0 and may not register or attach (EPERM)",
			Mend:  "run the daemon on the host, or its container with --pid=host",
		}
	}
	return okay("the initial one: the daemon sees every process")
}

// procFacts are what /proc shows.
type procFacts struct {
	isProc  bool     // the file system on /proc is proc
	self    string   // target of /proc/self
	pid     int      // our own
	options []string // of the mount
	initErr error    // of looking at /proc/1/ns/user
	shown   int      // how many processes can be looked at
	closed  []string // pids of those that cannot
	ptrace  bool     // CAP_SYS_PTRACE
}

func lookAtProc() procFacts {
	f := procFacts{pid: os.Getpid(), ptrace: ownPrivileges().has(unix.CAP_SYS_PTRACE)}
	var st unix.Statfs_t
	f.isProc = unix.Statfs("/proc", &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
	f.self, _ = os.Readlink("/proc/self") // without a target it is not ours, which is what matters
	_, f.initErr = inodeOf("/proc/1/ns/user")
	links, _ := filepath.Glob("/proc/[0-9]*/ns/user") // a good pattern: no error
	for _, link := range links {
		switch _, err := inodeOf(link); {
		case err == nil:
			f.shown++
		case errors.Is(err, os.ErrPermission):
			f.closed = append(f.closed, strings.Split(link, "/")[2])
		}
	}
	f.options = procOptions()
	return f
}

// procOptions returns the options with which /proc is mounted; none if they are not to be known.
func procOptions() (options []string) {
	table, err := readMountinfo()
	if err != nil {
		return nil
	}
	for _, m := range table { // the last one is on top
		if m.point == "/proc" {
			options = m.superOptions
		}
	}
	return options
}

// hidingOptions are those mount options of proc(5) that hide processes.
func hidingOptions(options []string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool {
		shows := o == "hidepid=0" || o == "hidepid=off"
		return shows || !strings.HasPrefix(o, "hidepid=") && o != "subset=pid"
	})
}

func judgeProc(f procFacts) finding {
	hidden := strings.Join(hidingOptions(f.options), ",")
	bad := finding{Status: statusMissing, Costs: "the daemon cannot tell who its callers are: nobody may register or attach"}
	switch {
	case !f.isProc:
		bad.Found = "no proc file system on /proc"
		bad.Mend = "mount -t proc proc /proc"
		return bad
	case f.self != strconv.Itoa(f.pid):
		bad.Found = "/proc belongs to another pid namespace than this process"
		bad.Mend = "mount -t proc proc /proc in the pid namespace of the daemon"
		return bad
	case f.ptrace && errors.Is(f.initErr, os.ErrPermission) && f.shown > len(f.closed):
		return finding{
			Status: statusWarn, Found: fmt.Sprintf("shows %d processes, but keeps closed, even to CAP_SYS_PTRACE, pid %s", f.shown, strings.Join(f.closed, ", ")),
			Costs: "the daemon cannot tell who they are: they may not register or attach (EACCES)",
			Mend:  "nothing to do, unless they are to use the device; then look at the kernel's security modules",
		}
	case f.initErr != nil:
		bad.privilege = errors.Is(f.initErr, os.ErrPermission) || hidden != ""
		bad.Found = f.initErr.Error()
		bad.Costs = "the daemon cannot tell who processes are that run under another uid or with more capabilities: they may not register or attach"
		bad.Mend = "run as root with CAP_SYS_PTRACE"
		if hidden != "" {
			bad.Found += " (mounted with " + hidden + ")"
			bad.Mend += ", or mount -o remount,hidepid=0 /proc"
		}
		return bad
	case hidden != "":
		return okay("shows %d processes; mounted with %s, which does not hold back this one", f.shown, hidden)
	}
	return okay("shows the processes of others too, %d in all", f.shown)
}
