// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
	ismfs "github.com/ismfs/ismfs/fs"
	"github.com/ismfs/ismfs/tree"
)

// What is moved in the trial, and how long it may take.
const (
	trialDMBSize  = 64 << 10
	trialHeader   = 32 // bytes of a DMB before its ring
	trialPatience = 10 * time.Second
)

// errNotTried is why there was no trial: it says nothing of the machine.
var errNotTried = errors.New("not tried")

// tryDevice mounts a device where nobody else sees it, and has a process of its own share a DMB. nil: it works.
func tryDevice() error {
	dir, err := os.MkdirTemp("", "ismfs-doctor-")
	if err != nil {
		return fmt.Errorf("%w: %w", errNotTried, err)
	}
	defer os.Remove(dir)
	result := make(chan error)
	go func() {
		// The thread gets a mount namespace of its own, and with it every process that it starts. It is never unlocked: it
		// ends with the goroutine, and its mounts end with it, whatever happens.
		runtime.LockOSThread()
		result <- tryDeviceHere(dir)
	}()
	return <-result
}

func tryDeviceHere(dir string) (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare of the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%w: making all mounts private: %w", errNotTried, err) // EINVAL in a chroot
	}
	ram, err := physicalMemory()
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	dev, err := device.New(device.Config{Limits: device.DefaultLimits(ram), Log: log})
	if err != nil {
		return err
	}
	defer dev.Close()
	server, err := ismfs.Mount(dir, dev, ismfs.Options{
		Source: "ismfs-doctor", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mode: 0o755, Version: version, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Detach()) }()
	return runTrialClient(dir)
}

// runTrialClient starts this program again as the client: a daemon must never touch its own mount.
func runTrialClient(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), trialPatience)
	defer cancel()
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "doctor", trialClientName, dir)
	cmd.Stderr = &complaint
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("the trial's client did not end within %v", trialPatience)
	}
	if text := strings.TrimSpace(complaint.String()); err != nil && text != "" {
		return fmt.Errorf("the trial's client: %s", strings.TrimPrefix(text, "ismfs: "))
	}
	return err
}

func judgeTrial(err error) finding {
	f := finding{
		Status: statusMissing,
		Found:  "the trial failed: " + strings.Join(strings.Fields(fmt.Sprint(err)), " "),
		Costs:  "no device: two processes would not see the same bytes in a DMB",
	}
	switch {
	case err == nil:
		return okay("tried: a device was mounted, and a process shared %s of a DMB with itself through two handles", humanBytes(trialDMBSize))
	case errors.Is(err, errNotTried):
		f.Status, f.Found = statusWarn, err.Error()
		f.Costs = "it is not known whether a device can be mounted here"
		f.Mend = "TMPDIR=DIR ismfs doctor, with a directory that can be written, outside of a chroot"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, ismfs.ErrNotPermitted):
		f.privilege = true
		f.Mend = "run as root on the host: sudo ismfs doctor"
	case errors.Is(err, ismfs.ErrNoFUSE):
		f.Mend = "modprobe fuse"
	case errors.Is(err, ismfs.ErrNoPassthrough):
		f.Mend = "boot a kernel of version 6.9 or newer with CONFIG_FUSE_PASSTHROUGH=y"
	default:
		f.Mend = "if all other checks are ok, please report it with this output"
	}
	return f
}

const trialClientName = "trial-client"

func newTrialClientCommand() *cobra.Command {
	return &cobra.Command{
		Use:    trialClientName + " MOUNTPOINT",
		Short:  "The client of doctor's trial",
		Hidden: true,
		Args:   oneArg,
		RunE:   func(_ *cobra.Command, args []string) error { return shareDMB(args[0]) },
	}
}

// shareDMB registers a DMB as its owner, attaches to it as a peer, and compares what both see.
func shareDMB(point string) error {
	d, err := tree.Find(point)
	if err != nil {
		return err
	}
	path := filepath.Join(d.Dir(), "dmbs", device.NewToken().String())
	owner, err := openDMB(path, unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("registering: %w", err)
	}
	defer unix.Close(owner)
	if err := unix.Ftruncate(owner, trialDMBSize); err != nil {
		return fmt.Errorf("giving the DMB its size: %w", err)
	}
	peer, err := openDMB(path, 0)
	if err != nil {
		return fmt.Errorf("attaching: %w", err)
	}
	defer unix.Close(peer)
	mine, err := mapDMB(owner)
	if err != nil {
		return fmt.Errorf("mapping as owner: %w", err)
	}
	theirs, err := mapDMB(peer)
	if err != nil {
		return fmt.Errorf("mapping as peer: %w", err)
	}
	payload := bytes.Repeat([]byte("loopback-ism "), (trialDMBSize-trialHeader)/13)
	copy(theirs[trialHeader:], payload)
	if !bytes.Equal(mine[trialHeader:][:len(payload)], payload) {
		return errors.New("the owner does not see what the peer stored in its mapping")
	}
	read := make([]byte, len(payload))
	if _, err := unix.Pread(owner, read, trialHeader); err != nil {
		return fmt.Errorf("reading the DMB: %w", err)
	}
	if !bytes.Equal(read, payload) {
		return errors.New("a read does not see what the peer stored in its mapping")
	}
	return nil
}

func openDMB(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func mapDMB(fd int) ([]byte, error) {
	return unix.Mmap(fd, 0, trialDMBSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}
