// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// A Registration is a device's place in the set of programs. It is the daemon's, and ends with [Registration.Close] or with
// its process; in the latter case the programs go on answering for the device.
type Registration struct {
	host      host
	wholeHost bool
	tag       smcopt.Tag
	dir       *os.File // the lock that says this daemon lives
	users     atomic.Int64

	mu      sync.Mutex
	tags    *ebpf.Map // nil: closed
	idle    bool      // so it was said in the set, and the programs may be detached
	counter *counter  // nil: not needed yet
}

// Attach makes the set of programs, or joins it, and adds a device's tag. Call it before anybody can learn of the device: from
// then on SYNs that carry the tag are answered. A tag must be of one device only, and never be used again.
//
// It needs CAP_SYS_ADMIN in the initial user namespace. Errors: [ErrNotSupported],
// [ErrNotPermitted], [ErrNoCgroup2], [ErrOtherSet], and others.
func Attach(tag smcopt.Tag) (*Registration, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	return h.attach(tag)
}

func (h host) attach(tag smcopt.Tag) (*Registration, error) {
	if tag == (smcopt.Tag{}) {
		return nil, errors.New("the zero tag names no device")
	}
	if err := h.mountBPFFS(); err != nil {
		return nil, err
	}
	unlock, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	tags, err := h.join()
	if err != nil {
		return nil, err
	}
	wholeHost, err := h.attachedToRoot()
	if err != nil {
		tags.Close()
		return nil, err
	}
	dir, err := h.enter(tags, tag)
	if err != nil {
		tags.Close()
		_, e := h.removeIdle()
		return nil, errors.Join(err, e)
	}
	return &Registration{host: h, wholeHost: wholeHost, tag: tag, dir: dir, tags: tags}, nil
}

// enter adds a device to the set. The place of a dead daemon whose device had the same GID may be taken over.
func (h host) enter(tags *ebpf.Map, tag smcopt.Tag) (*os.File, error) {
	mode := ebpf.UpdateNoExist
	err := os.Mkdir(h.device(tag), 0o700)
	if errors.Is(err, os.ErrExist) {
		mode, err = ebpf.UpdateAny, nil
	}
	if err != nil {
		return nil, err
	}
	dir, err := flock(h.device(tag))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("a device with the tag %s, the end of the GID, is there already: %w", tag, os.ErrExist)
	}
	if err == nil {
		err = h.setIdle(tag, false)
	}
	if err == nil {
		err = h.addTag(tags, tag, mode)
	}
	if err != nil {
		if dir != nil {
			dir.Close()
		}
		return nil, errors.Join(err, os.RemoveAll(h.device(tag)))
	}
	return dir, nil
}

func (h host) addTag(tags *ebpf.Map, tag smcopt.Tag, mode ebpf.MapUpdateFlags) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return err
	}
	add := func() error { return tags.Update(key(tag), uint64(now.Nano()), mode) }
	err := add()
	if errors.Is(err, unix.E2BIG) { // the dead may go
		devices, e := h.list()
		if e == nil {
			e = h.forget(tags, devices)
		}
		if e != nil {
			return e
		}
		err = add()
	}
	if err != nil {
		return typed(fmt.Errorf("adding tag %s: %w", tag, err))
	}
	return nil
}

// key is a tag in the map: the word of the socket option with nothing at its head.
func key(tag smcopt.Tag) (k [8]byte) {
	copy(k[1:], tag[:])
	return k
}

func removeTag(tags *ebpf.Map, tag smcopt.Tag) error {
	if err := tags.Delete(key(tag)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("removing tag %s: %w", tag, err)
	}
	return nil
}

// WholeHost reports whether the programs see the sockets of all processes of the host. In a container with a cgroup namespace
// of its own they see the container's.
func (r *Registration) WholeHost() bool { return r.wholeHost }

// Withdraw takes the tag back: sockets can no longer be marked with it, and no SYN that carries it is answered any more. What
// has been answered stays answered. Do this first when unmounting. It may be called again.
func (r *Registration) Withdraw() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.withdraw()
}

func (r *Registration) withdraw() error {
	if r.tags == nil {
		return nil
	}
	return removeTag(r.tags, r.tag)
}

// Close withdraws the tag and leaves the set. The set is detached and removed if nobody needs it any more: no other daemon
// lives, no listener is marked and no connection is there whose answer has not been read. Otherwise that is left to the next
// Close, or to [RemoveIdle]. A second Close does nothing.
func (r *Registration) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tags == nil {
		return nil
	}
	unlock, err := r.host.lock()
	if err != nil {
		return errors.Join(err, r.withdraw())
	}
	defer unlock()
	err = errors.Join(r.withdraw(), r.tags.Close())
	r.tags = nil
	if r.counter != nil {
		err = errors.Join(err, r.counter.iter.Close())
	}
	err = errors.Join(err, os.RemoveAll(r.dir.Name()))
	_, e := r.host.removeIdle()
	return errors.Join(err, r.dir.Close(), e)
}

// RemoveIdle detaches and removes the set if nobody needs it, as [Registration.Close] does, and reports whether it did.
func RemoveIdle() (removed bool, err error) {
	h, err := thisHost()
	if err != nil && !errors.Is(err, ErrNoCgroup2) {
		return false, err
	}
	return h.removeUnused()
}

func (h host) removeUnused() (bool, error) {
	if !isBPFFS(h.bpffs) {
		return false, nil
	}
	unlock, err := h.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	return h.removeIdle()
}
