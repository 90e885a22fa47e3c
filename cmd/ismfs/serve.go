// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
	ismfs "github.com/ismfs/ismfs/fs"
	"github.com/ismfs/ismfs/tree"
)

// serve mounts and stays until the tree is unmounted.
func serve(point string, o *mountOptions) error {
	ready := readyPipe()
	log, err := openLog(o, ready != nil)
	if err != nil {
		return err
	}
	// From before the mount on: a signal in between must not leave a dead mount behind.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	signal.Ignore(unix.SIGPIPE) // who reads the log may go: that is no reason to end
	raiseFileLimit(o.limits, log)

	s := newSockets(log)
	dev, err := device.New(device.Config{
		GID:      o.deviceGID.GID,
		DMBType:  device.Type(o.dmbType),
		DMBCopy:  o.dmbCopy == 1,
		Waiting:  o.wait,
		Limits:   o.limits,
		AdminUID: o.uid,
		Users:    s,
		Log:      log,
	})
	if err != nil {
		return err
	}
	defer dev.Close()
	unlock, err := lockMountPoint(point)
	if err != nil {
		return err
	}
	if err := s.attach(o.sockets, dev.LocalGID()); err != nil {
		unlock()
		return err
	}
	defer s.close()
	server, err := ismfs.Mount(point, dev, ismfs.Options{
		Source: o.source, AllowOther: o.allowOther, UID: o.uid, GID: o.gid, Mode: uint32(o.mode),
		Version: version, Debug: o.debug, Log: log,
	})
	unlock()
	if err != nil {
		return mountError(err)
	}
	log.Info("mounted", "point", point, "gid", dev.LocalGID(), "version", version)
	s.tell(warningsBesideLog(o, ready != nil))
	if err := tellReady(ready); err != nil {
		return errors.Join(err, server.Detach())
	}
	notifySystemd(daemon.SdNotifyReady, log)
	gone, stop := outOfSight(point)
	defer stop()
	return tend(server, dev, s, signals, gone, log)
}

// outOfSight returns a channel that is closed when the mount on point is among this process's mounts no more, though files in
// it may be open still. stop ends looking.
func outOfSight(point string) (gone <-chan struct{}, stop func()) {
	out := make(chan struct{})
	m, mounted, err := mountAt(point)
	if err != nil || !mounted {
		return out, func() {} // unmounted again already; then the server is done
	}
	over := sync.OnceFunc(func() { close(out) })
	return out, tree.WatchMounts(func() {
		if there, err := tree.Shown(m.Dev); err == nil && !there {
			over()
		}
	})
}

// endDetached waits, after the mount was taken out of sight, until no connection is left. Files that are open besides, such as
// procs blocks, need no daemon.
func endDetached(server *ismfs.Server, dev *device.Device, log *slog.Logger) error {
	log.Info("detached", "leased", dev.LeasedDMBs())
	dev.Drain()
	retry := time.NewTicker(200 * time.Millisecond)
	defer retry.Stop()
	for dev.LeasedDMBs() > 0 {
		select {
		case <-server.Done():
			return nil
		case <-retry.C:
		}
	}
	return nil
}

// tend waits for the end of the mount, and brings it about when told to.
func tend(server *ismfs.Server, dev *device.Device, s *sockets, signals <-chan os.Signal, gone <-chan struct{}, log *slog.Logger) error {
	select {
	case <-server.Done():
		log.Info("unmounted")
		return nil
	case <-gone:
		s.withdraw()
		return endDetached(server, dev, log)
	case sig := <-signals:
		log.Info("nothing new is registered any more; the tree is unmounted when the last leased DMB is gone (a second signal detaches it at once)",
			"signal", sig, "leased", dev.LeasedDMBs())
	}
	notifySystemd(daemon.SdNotifyStopping, log)
	s.withdraw() // before the device says no, so that few clients propose in vain
	dev.Drain()
	const step, patience = 50 * time.Millisecond, 2 * time.Second
	retry := time.NewTicker(step)
	defer retry.Stop()
	busy := false
	idle := time.Duration(0) // since no DMB is leased any more
	for {
		// While any DMB is open the kernel itself refuses to unmount, so no connection breaks between a look and the deed.
		err := server.Unmount()
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err != nil && !busy {
			busy = true
			log.Warn("files in the tree are open", "err", err)
		}
		select {
		case <-server.Done():
			log.Info("unmounted")
			return nil
		case <-signals:
			log.Warn("detaching; programs that have DMBs open keep them", "leased", dev.LeasedDMBs())
			return server.Detach()
		case <-retry.C:
		}
		if dev.LeasedDMBs() > 0 {
			idle = 0
			continue
		}
		// What keeps the tree busy is a working directory, say, or a mapping whose DMB is closed: no connection is in it.
		if idle += step; idle >= patience {
			log.Warn("detaching: no DMB is leased, but something in the tree is in use", "for", idle)
			return server.Detach()
		}
	}
}

func notifySystemd(state string, log *slog.Logger) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "err", err)
	}
}

// raiseFileLimit makes room for the device's descriptors, as far as the hard limit (or root) allows.
func raiseFileLimit(l device.Limits, log *slog.Logger) {
	want := wantedFiles(l)
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur >= want {
		return
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: max(want, lim.Max)}) == nil {
		return
	}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: min(want, lim.Max), Max: lim.Max})
	if err != nil || lim.Max < want {
		log.Warn("RLIMIT_NOFILE is too low for max_dmbs: registering fails with ENFILE before the table is full",
			"have", lim.Max, "want", want, "err", err)
	}
}

// warningsBesideLog is standard error where the log goes elsewhere. In the background it is the caller's until the tree is
// said to be mounted.
func warningsBesideLog(o *mountOptions, background bool) io.Writer {
	if background || o.logFile != "" {
		return os.Stderr
	}
	return nil
}

// openLog logs to the file of --log; else to standard error in the foreground and to syslog in the background.
func openLog(o *mountOptions, background bool) (*slog.Logger, error) {
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level}
	switch {
	case o.logFile != "":
		f, err := os.OpenFile(o.logFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, fmt.Errorf("--log: %w", err)
		}
		return slog.New(slog.NewTextHandler(f, opts)), nil
	case background:
		return slog.New(syslogHandler(opts)), nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
}
