// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Caller is who asks for an operation, as the daemon's side sees it: FUSE gives the calling thread's id and its
// file-system uid and gid. It is meaningful only while that thread waits for the answer; until then its id cannot pass to
// another thread.
type Caller struct {
	UID, GID uint32
	TID      uint32 // in the daemon's pid namespace; 0: a thread that the daemon cannot see
}

// A Principal is in whose name a thread acts. Two threads that could ptrace one another are one principal to this device;
// being the same uid is not enough, or root in a container would be root here.
type Principal struct {
	UID     uint32
	userNS  uint64 // inode numbers of the namespaces
	pidNS   uint64
	allowed uint64 // permitted capabilities
	acting  uint64 // effective capabilities
}

// mayTouch reports whether what owner made is p's own too: the same uid in the same user and pid namespaces, and no
// capability that p lacks (the rule of the kernel's cap_ptrace_access_check). The last keeps the root of a container that
// shares the host's pid namespace away from what the host's root made.
func (p Principal) mayTouch(owner Principal) bool {
	return p.UID == owner.UID && p.userNS == owner.userNS && p.pidNS == owner.pidNS && owner.allowed&^p.allowed == 0
}

// principal looks up in whose name the caller acts.
func (c Caller) principal() (Principal, error) {
	if c.TID == 0 {
		return Principal{}, fmt.Errorf("the caller is in a pid namespace that the daemon cannot see: %w", unix.EPERM)
	}
	p := Principal{UID: c.UID}
	var err error
	if p.userNS, err = namespaceOf(c.TID, "user"); err != nil {
		return Principal{}, err
	}
	if p.pidNS, err = namespaceOf(c.TID, "pid"); err != nil {
		return Principal{}, err
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(c.TID)}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return Principal{}, fmt.Errorf("capabilities of thread %d: %w", c.TID, err)
	}
	p.allowed = uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	p.acting = uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	return p, nil
}

// checkProc makes sure that /proc shows processes by the ids that this process knows them by. In a new pid namespace with the
// old /proc every caller would be taken for somebody else.
func checkProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("/proc tells the daemon who its callers are: %w (mount -t proc proc /proc)", err)
	}
	if self != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("/proc is that of another pid namespace: this process is %d, and %s there (mount -t proc proc /proc)", os.Getpid(), self)
	}
	return nil
}

// namespaceOf returns what identifies the namespace of a kind ("user", "pid", "net") that a thread is in.
func namespaceOf(tid uint32, kind string) (uint64, error) {
	return namespaceIn("/proc/"+strconv.FormatUint(uint64(tid), 10), kind)
}

// namespaceIn does so for a thread whose directory in /proc is known.
func namespaceIn(dir, kind string) (uint64, error) {
	var st unix.Stat_t
	path := dir + "/ns/" + kind
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// process returns the id of the process that the calling thread belongs to.
func (c Caller) process() (int, error) {
	if c.TID == 0 {
		return 0, fmt.Errorf("the caller is in a pid namespace that the daemon cannot see: %w", unix.EPERM)
	}
	if pid, err := processByPidfd(c.TID); err == nil {
		return pid, nil
	}
	return processByStatus(c.TID) // before Linux 6.13 a pidfd cannot be asked
}

func processByPidfd(tid uint32) (int, error) {
	fd, err := unix.PidfdOpen(int(tid), unix.O_EXCL) // O_EXCL is PIDFD_THREAD: any thread, not only a leader
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil {
		return 0, err
	}
	return int(info.Tgid), nil
}

func processByStatus(tid uint32) (int, error) {
	path := fmt.Sprintf("/proc/%d/status", tid)
	status, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte("Tgid:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	return 0, &os.PathError{Op: "find Tgid in", Path: path, Err: syscall.EIO}
}

// owner returns the uid to which a process belongs for ptrace and in /proc: its effective uid or, where it may not be dumped
// because it has given up privileges, root.
func (p *Process) owner() (uint32, error) {
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/status", p.PID) // the directory itself always shows the effective uid
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Uid, nil
}

// identify looks up both which process the caller belongs to and in whose name it acts.
func (c Caller) identify() (pid int, who Principal, err error) {
	if pid, err = c.process(); err != nil {
		return 0, Principal{}, err
	}
	who, err = c.principal()
	return pid, who, err
}
