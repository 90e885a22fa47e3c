// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// A Device is one that the set knows.
type Device struct {
	Tag   smcopt.Tag
	Alive bool // its daemon is
	Idle  bool // its daemon has said that no process uses it
}

// list returns the devices that have a directory in the set.
func (h host) list() ([]Device, error) {
	entries, err := os.ReadDir(h.devices())
	if err != nil {
		return nil, err
	}
	var devices []Device
	for _, e := range entries {
		tag, err := smcopt.ParseTag(e.Name())
		if err != nil {
			return nil, h.damaged(err)
		}
		dir, err := flock(h.device(tag))
		if err == nil {
			dir.Close()
		}
		_, idle := os.Stat(h.idle(tag))
		devices = append(devices, Device{tag, errors.Is(err, unix.EWOULDBLOCK), idle == nil})
	}
	return devices, nil
}

func (h host) device(tag smcopt.Tag) string { return filepath.Join(h.devices(), tag.String()) }

// forget removes the tags of dead daemons.
func (h host) forget(tags *ebpf.Map, devices []Device) error {
	for _, d := range devices {
		if d.Alive {
			continue
		}
		if err := removeTag(tags, d.Tag); err != nil {
			return err
		}
		if err := os.RemoveAll(h.device(d.Tag)); err != nil {
			return err
		}
	}
	return nil
}

// removeIdle removes the set if no daemon lives and no socket needs it. Where daemons live it detaches the programs, unless they
// are needed. The lock is held.
func (h host) removeIdle() (removed bool, err error) {
	devices, err := h.list()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // somebody has removed it by hand
	}
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if d.Alive {
			_, err := h.detachIdle(h.waiting)
			return false, err
		}
	}
	tags, err := ebpf.LoadPinnedMap(mapPin(h.set(), tagsName), nil)
	if err != nil {
		return false, h.damaged(err)
	}
	defer tags.Close()
	if err := h.forget(tags, devices); err != nil { // and from now on no socket can be marked
		return false, err
	}
	if n, err := h.waiting(); err != nil || n > 0 {
		return false, err
	}
	return true, h.remove()
}

// remove detaches and unpins.
func (h host) remove() error {
	dir := filepath.Join(h.base(), removingName)
	if err := os.Rename(h.set(), dir); err != nil {
		return err
	}
	for i := len(attachments) - 1; i >= 0; i-- {
		if err := os.Remove(linkPin(dir, attachments[i].program)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(dir)
}
