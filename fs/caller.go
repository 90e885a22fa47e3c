// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/ismfs/ismfs/device"
)

// callerOf returns who sent the request. For RELEASE and FORGET it says nothing of use.
func callerOf(ctx context.Context) device.Caller {
	c, ok := fuse.FromContext(ctx)
	if !ok {
		return device.Caller{}
	}
	return device.Caller{UID: c.Uid, GID: c.Gid, TID: c.Pid}
}

// errno turns a device's error into what FUSE can carry. An error without an errno is a fault of the daemon's.
func errno(log *slog.Logger, err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var e syscall.Errno
	if !errors.As(err, &e) {
		log.Error("operation failed", "err", err)
		return syscall.EIO
	}
	switch e {
	case syscall.EMFILE: // the daemon's own limit, not the caller's
		log.Error("the daemon is out of file descriptors: raise its RLIMIT_NOFILE", "err", err)
		return syscall.ENFILE
	}
	log.Debug("operation refused", "err", err)
	return e
}

// everybodyEnters is the mode of a root that lets everybody in.
const everybodyEnters = 0o111

// mayEnter reports whether the mode of the tree's root lets a caller in, as its owner, one of its group or another.
func mayEnter(c device.Caller, uid, gid, mode uint32) bool {
	const enter = 1
	switch {
	case c.UID == 0 || mode&everybodyEnters == everybodyEnters:
		return true
	case c.UID == uid:
		return mode>>6&enter != 0
	case c.GID == gid || slices.Contains(groupsOf(c.TID), gid):
		return mode>>3&enter != 0
	}
	return mode&enter != 0
}

// groupsOf returns the supplementary groups of a thread; none if it cannot be asked.
func groupsOf(tid uint32) []uint32 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return nil
	}
	var groups []uint32
	for line := range bytes.Lines(status) {
		list, ok := bytes.CutPrefix(line, []byte("Groups:"))
		if !ok {
			continue
		}
		for _, f := range bytes.Fields(list) {
			if g, err := strconv.ParseUint(string(f), 10, 32); err == nil {
				groups = append(groups, uint32(g))
			}
		}
	}
	return groups
}
