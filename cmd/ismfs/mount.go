// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	ismfs "github.com/ismfs/ismfs/fs"
	"github.com/ismfs/ismfs/tree"
)

func newMountCommand() *cobra.Command {
	var o mountOptions
	c := &cobra.Command{
		Use:   "mount MOUNTPOINT",
		Short: "Put up a device and its tree",
		Long: strings.TrimSpace(`
Makes a new loopback-ism device and mounts its tree on MOUNTPOINT, an empty directory. The command returns when the tree
answers; its daemon stays in the background, unless --foreground is given.

The daemon needs CAP_SYS_ADMIN in the initial user namespace, for FUSE passthrough, and CAP_SYS_PTRACE, to know its callers
(root has both); its clients need no privilege.

It also attaches the eBPF programs by which TCP sockets of programs that use libsmc, or run under smc_run, say SMC to each other; all devices of
the host share them. They stay attached while a process uses a device. If they cannot be it warns, and sockets stay TCP; see --sockets.

SIGTERM or SIGINT: nothing new is registered, and when the last leased DMB is gone the tree is unmounted. A second one
detaches the tree at once; programs that have DMBs open keep them.

Also as a mount helper:  mount -t fuse.ismfs none MOUNTPOINT -o max_dmbs=2000
and in /etc/fstab:       none  /run/ismfs/host  fuse.ismfs  defaults,nofail  0 0`),
		Args: oneArg,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(c.Flags()); err != nil {
				return usageError(err)
			}
			return mount(args[0], &o, c.Flags())
		},
	}
	c.Flags().SortFlags = false
	if err := o.flags(c.Flags()); err != nil {
		c.RunE = func(*cobra.Command, []string) error { return err }
	}
	return c
}

// mount mounts in the foreground, or starts a daemon that does.
func mount(point string, o *mountOptions, flags *pflag.FlagSet) error {
	point, err := resolve(point)
	if err != nil {
		return err
	}
	if err := checkMountPoint(point, o.replace); err != nil {
		return err
	}
	if o.foreground {
		return serve(point, o)
	}
	if o.logFile != "" { // the daemon works in /
		log, err := filepath.Abs(o.logFile)
		if err != nil {
			return err
		}
		flags.Set("log", log)
	}
	return startDaemon(point, flags)
}

// resolve makes a mount point absolute and free of symlinks, without looking at the mount itself: it may be a dead one.
func resolve(point string) (string, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", withCode(exitMountPoint, fmt.Errorf("mount point %s: %w", point, err))
	}
	abs = filepath.Join(parent, filepath.Base(abs))
	if target, err := filepath.EvalSymlinks(abs); err == nil {
		return target, nil
	}
	return abs, nil
}

// checkMountPoint refuses a mount point that cannot be used, and with replace clears away the dead mount on it.
func checkMountPoint(point string, replace bool) error {
	if err := clearMounts(point, replace); err != nil {
		return err
	}
	st, err := os.Stat(point)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return withCode(exitMountPoint, fmt.Errorf("mount point %s does not exist: make it with mkdir -p %[1]s", point))
	case errors.Is(err, unix.ENOTCONN):
		return withCode(exitMountPoint, fmt.Errorf("mount point %s is a dead FUSE mount of another kind: umount -l %[1]s", point))
	case err != nil:
		return withCode(exitMountPoint, fmt.Errorf("mount point: %w", err))
	case !st.IsDir():
		return withCode(exitMountPoint, fmt.Errorf("mount point %s is not a directory", point))
	}
	entries, err := os.ReadDir(point)
	if err != nil {
		return withCode(exitMountPoint, fmt.Errorf("mount point: %w", err))
	}
	if len(entries) > 0 {
		if _, mounted, err := mountAt(point); err != nil || mounted { // since clearMounts has looked
			return errors.Join(err, justMounted(point))
		}
		return withCode(exitMountPoint, fmt.Errorf("mount point %s is not empty: it holds %s; use an empty directory", point, entries[0].Name()))
	}
	return nil
}

// clearMounts deals with ismfs mounts that are on the mount point already.
func clearMounts(point string, replace bool) error {
	for {
		m, mounted, err := mountAt(point)
		if err != nil || !mounted {
			return err
		}
		if err := m.Alive(); !errors.Is(err, unix.ENOTCONN) {
			return withCode(exitInUse, fmt.Errorf("a live ismfs is mounted on %s (ismfs info shows it): unmount it first with ismfs umount %[1]s", point))
		}
		if !replace {
			return withCode(exitMountPoint, fmt.Errorf("%s holds the mount of a daemon that has died: mount with --replace to take it over", point))
		}
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return notPermitted(fmt.Errorf("taking the dead mount off %s: %w", point, err))
		}
	}
}

// lockMountPoint keeps two mounts from being put on one point at once: who has looked and found nothing there holds the lock
// until its own mount is there to be found.
func lockMountPoint(point string) (unlock func(), err error) {
	dir, err := os.Open(point)
	if err != nil {
		return nil, withCode(exitMountPoint, fmt.Errorf("mount point: %w", err))
	}
	unlock = func() { dir.Close() }
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unlock()
		return nil, withCode(exitInUse, fmt.Errorf("another ismfs mount is at work on %s: %w", point, err))
	}
	if _, mounted, err := mountAt(point); err != nil || mounted {
		unlock()
		return nil, errors.Join(err, justMounted(point))
	}
	return unlock, nil
}

func justMounted(point string) error {
	return withCode(exitInUse, fmt.Errorf("an ismfs has just been mounted on %s", point))
}

// mountAt returns the ismfs mount on top of a path.
func mountAt(point string) (m tree.Mount, mounted bool, err error) {
	mounts, err := tree.Mounts()
	if err != nil {
		return m, false, err
	}
	for _, m := range mounts {
		if m.Point == point {
			return m, true, nil
		}
	}
	return m, false, nil
}

// notPermitted gives an error the exit code of a missing privilege if that is what it is.
func notPermitted(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return withCode(exitNotPermitted, fmt.Errorf("%w (run as root)", err))
	}
	return err
}

// mountError gives an error of ismfs.Mount its exit code and its way out.
func mountError(err error) error {
	switch {
	case errors.Is(err, ismfs.ErrNotPermitted):
		return withCode(exitNotPermitted, fmt.Errorf("%w: the daemon needs CAP_SYS_ADMIN: run as root", err))
	case errors.Is(err, ismfs.ErrNoPassthrough) && errors.Is(err, unix.EPERM):
		return withCode(exitNotPermitted, fmt.Errorf("%w; DMBs cannot be shared without, so nothing is mounted (ismfs doctor tells more)", err))
	case errors.Is(err, ismfs.ErrNoPassthrough):
		return withCode(exitUnsupported, fmt.Errorf("%w; DMBs cannot be shared without, so nothing is mounted (ismfs doctor tells more)", err))
	case errors.Is(err, ismfs.ErrNoFUSE) && errors.Is(err, fs.ErrPermission):
		return withCode(exitNotPermitted, fmt.Errorf("%w: run as root (sudo ismfs mount DIR)", err))
	case errors.Is(err, ismfs.ErrNoFUSE):
		return withCode(exitUnsupported, fmt.Errorf("%w (ismfs doctor tells more)", err))
	}
	return err
}
