// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// host is where a set is attached and pinned. There is one (thisHost); tests have their own.
type host struct {
	cgroup    string // directory to attach to
	wholeHost bool   // it is the root of the hierarchy, not that of a container
	bpffs     string // mount point of a BPF file system
	option    uint32 // number of the socket option
	program   string // name of the sockops program, by which other sets are known
}

const bpffsPath = "/sys/fs/bpf"

func thisHost() (host, error) {
	h := host{bpffs: bpffsPath, option: smcopt.Name, program: sockopsName}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return h, err
	}
	h.cgroup, h.wholeHost = findCgroup2(string(mountinfo), isRootCgroup)
	if h.cgroup == "" {
		return h, ErrNoCgroup2
	}
	return h, nil
}

// findCgroup2 returns where the root of the cgroup v2 hierarchy is mounted. On hybrid hosts that is not /sys/fs/cgroup, and in
// a container it may only be the container's part of it.
func findCgroup2(mountinfo string, isRoot func(dir string) bool) (dir string, wholeHost bool) {
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if fsType, _, _ := strings.Cut(after, " "); !found || len(fields) < 5 || fsType != "cgroup2" {
			continue
		}
		point := unescape(fields[4])
		if isRoot(point) {
			return point, true
		}
		if dir == "" {
			dir = point
		}
	}
	return dir, false
}

// unescape undoes the escapes of proc_pid_mountinfo(5).
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// isRootCgroup tells the root of the hierarchy from every other cgroup: it alone has no cgroup.type.
func isRootCgroup(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return errors.Is(err, os.ErrNotExist)
}

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// mountBPFFS mounts a BPF file system where it belongs, as systemd does, unless it is there.
func (h host) mountBPFFS() error {
	if isBPFFS(h.bpffs) {
		return nil
	}
	err := unix.Mount("bpf", h.bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=700")
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: no BPF file system (CONFIG_BPF_SYSCALL)", ErrNotSupported)
	case err != nil:
		return typed(fmt.Errorf("mounting a BPF file system on %s, where the programs are kept: %w", h.bpffs, err))
	}
	return nil
}

// base is the directory that all sets of this bpffs are in. It is the lock, and other users cannot open it.
func (h host) base() string { return filepath.Join(h.bpffs, "ismfs") }

// lockWait is how long somebody else may hold the lock. It is held while programs are loaded, never while anybody waits.
const lockWait = 10 * time.Second

// lock waits for the lock of this bpffs. Unlock removes the directory if it is empty by then.
func (h host) lock() (unlock func(), err error) { return h.waitForLock(true) }

// lockExisting is lock that makes nothing: where there is no directory there is no set either.
func (h host) lockExisting() (unlock func(), err error) { return h.waitForLock(false) }

func (h host) waitForLock(mayMake bool) (unlock func(), err error) {
	deadline := time.Now().Add(lockWait)
	for {
		if mayMake {
			if err := os.Mkdir(h.base(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, typed(err)
			}
		}
		dir, err := waitForFlock(h.base(), deadline)
		switch {
		case err == nil:
			return func() { os.Remove(h.base()); dir.Close() }, nil
		case errors.Is(err, os.ErrNotExist) && !mayMake:
			return func() {}, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("another process has kept %s locked for %v: %w", h.base(), lockWait, err)
		case !errors.Is(err, os.ErrNotExist):
			return nil, typed(err)
		}
	}
}

// flock locks a directory as long as it stays open. EWOULDBLOCK: somebody else holds it; ENOENT: it has been removed.
func flock(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return locked(dir, unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}

// waitForFlock is flock that waits in the kernel, where all who wait have their turns. os.ErrDeadlineExceeded: somebody else
// holds it for so long.
func waitForFlock(path string, deadline time.Time) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- lockDescriptor(int(dir.Fd())) }()
	select {
	case err := <-done:
		return locked(dir, err)
	case <-time.After(time.Until(deadline)):
		go func() { // a lock that comes too late
			<-done
			dir.Close()
		}()
		return nil, &os.PathError{Op: "flock", Path: dir.Name(), Err: os.ErrDeadlineExceeded}
	}
}

// locked returns a directory that was locked, if err says so and it is still there.
func locked(dir *os.File, err error) (*os.File, error) {
	if err == nil {
		err = isStill(dir)
	}
	if err != nil {
		dir.Close()
		return nil, &os.PathError{Op: "flock", Path: dir.Name(), Err: err}
	}
	return dir, nil
}

func lockDescriptor(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// isStill returns ENOENT if an open directory is not in its place any more.
func isStill(dir *os.File) error {
	opened, err := dir.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(dir.Name()); err != nil || !os.SameFile(opened, now) {
		return unix.ENOENT
	}
	return nil
}
