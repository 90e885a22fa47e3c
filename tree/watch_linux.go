// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"os"
	"syscall"
)

// WatchMounts calls changed at once, and after every change of this process's mounts, until stop is called. The kernel tells of it by an
// error condition on /proc/self/mountinfo (proc_pid_mountinfo(5)), which Go's poller takes for news. Without changes it
// costs nothing.
func WatchMounts(changed func()) (stop func()) {
	fd, err := syscall.Open("/proc/self/mountinfo", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return func() {}
	}
	// One call for good: to arm anew for each change could lose the one that comes in between.
	go raw.Read(func(uintptr) (done bool) {
		changed()
		return false
	})
	return func() { f.Close() }
}
