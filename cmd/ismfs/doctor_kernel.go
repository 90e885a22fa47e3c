// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// The oldest kernel with FUSE passthrough.
const needMajor, needMinor = 6, 9

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown: " + err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

func judgeKernel(release string) finding {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return finding{
			Status: statusWarn, Found: fmt.Sprintf("Linux %q; it needs %d.%d or newer", release, needMajor, needMinor),
			Costs: "nothing by itself: passthrough is tried below", Mend: "nothing to do if it works",
		}
	}
	if major < needMajor || major == needMajor && minor < needMinor {
		return finding{
			Status: statusMissing, Found: fmt.Sprintf("Linux %s; it needs %d.%d or newer", release, needMajor, needMinor),
			Costs: "no device: there is no FUSE passthrough before, so DMBs cannot be shared",
			Mend:  fmt.Sprintf("boot a kernel of version %d.%d or newer with CONFIG_FUSE_PASSTHROUGH=y", needMajor, needMinor),
		}
	}
	return okay("Linux %s, %d.%d or newer", release, needMajor, needMinor)
}

const fusePath = "/dev/fuse"

func openFUSE() error {
	fd, err := unix.Open(fusePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func judgeFUSE(err error) finding {
	f := finding{Status: statusMissing, Found: fmt.Sprintf("open %s: %v", fusePath, err), Costs: "no device"}
	switch {
	case err == nil:
		return okay("%s opens", fusePath)
	case errors.Is(err, fs.ErrNotExist):
		f.Mend = "modprobe fuse; in a container: give it the device (docker run --device /dev/fuse)"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		f.Mend = "modprobe fuse, or boot a kernel with CONFIG_FUSE_FS"
	case errors.Is(err, fs.ErrPermission):
		f.privilege = true
		f.Mend = "run as root; in a container: give it the device (docker run --device /dev/fuse)"
	default:
		f.Mend = "look at dmesg"
	}
	return f
}

// pidfdFacts are the errors of what the device does to know a caller and its end.
type pidfdFacts struct {
	open   error // pidfd_open
	thread error // the same with PIDFD_THREAD, Linux 6.9
	info   error // PIDFD_GET_INFO, Linux 6.13
}

func tryPidfd() pidfdFacts {
	var f pidfdFacts
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return pidfdFacts{open: err, thread: err, info: err}
	}
	defer unix.Close(fd)
	const pidfdThread = unix.O_EXCL // PIDFD_THREAD
	tfd, err := unix.PidfdOpen(unix.Gettid(), pidfdThread)
	if err != nil {
		f.thread = err
	} else {
		unix.Close(tfd)
	}
	f.info = unix.IoctlPidfdInfo(fd, &unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID})
	return f
}

func judgePidfd(f pidfdFacts) finding {
	switch {
	case f.open != nil:
		return finding{
			Status: statusMissing, Found: fmt.Sprintf("pidfd_open: %v", f.open),
			Costs: "no device: it cannot see the end of a process, nor free what it leaves",
			Mend:  "allow pidfd_open in the seccomp profile under which the daemon runs",
		}
	case f.thread != nil:
		return finding{
			Status: statusWarn, Found: fmt.Sprintf("pidfd_open works, with PIDFD_THREAD not: %v", f.thread),
			Costs: "a register or attach takes longer: the daemon reads /proc/PID/status to know the caller",
			Mend:  "Linux 6.9 or newer has it",
		}
	case f.info != nil:
		return finding{
			Status: statusWarn, Found: fmt.Sprintf("pidfd_open works, PIDFD_GET_INFO not: %v", f.info),
			Costs: "a register or attach takes longer: the daemon reads /proc/PID/status to know the caller",
			Mend:  "Linux 6.13 or newer has it",
		}
	}
	return okay("pidfd_open, PIDFD_THREAD, PIDFD_GET_INFO")
}

// memfdFacts are the errors of making a DMB's memory.
type memfdFacts struct {
	plain  error // memfd_create with MFD_ALLOW_SEALING
	noexec error // the same with MFD_NOEXEC_SEAL, Linux 6.3
}

func tryMemfd() memfdFacts {
	try := func(flags int) error {
		fd, err := unix.MemfdCreate("ismfs-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return memfdFacts{plain: try(0), noexec: try(unix.MFD_NOEXEC_SEAL)}
}

func judgeMemfd(f memfdFacts) finding {
	switch {
	case f.noexec == nil:
		return okay("memfd_create with MFD_NOEXEC_SEAL")
	case errors.Is(f.noexec, unix.EINVAL) && f.plain == nil:
		return finding{
			Status: statusWarn, Found: "memfd_create, without MFD_NOEXEC_SEAL",
			Costs: "a DMB's memory could be marked executable", Mend: "Linux 6.3 or newer has it",
		}
	}
	return finding{
		Status: statusMissing, Found: fmt.Sprintf("memfd_create: %v", f.noexec),
		Costs: "no device: a DMB is a memfd",
		Mend:  "allow memfd_create in the seccomp profile under which the daemon runs",
	}
}
