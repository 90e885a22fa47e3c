// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf/link"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// The kernel takes its price for calling a program from every socket of the host, so programs are attached only while somebody
// may need them: a process that uses a device, or a socket that waits (see waiting).

// idleName is a directory in a device's: no process uses it. A device whose daemon says nothing, or has a build that cannot
// say it, counts as used; a dead one's does not.
const idleName = "idle"

func (h host) idle(tag smcopt.Tag) string { return filepath.Join(h.device(tag), idleName) }

// setIdle says whether a device is used. The lock is held.
func (h host) setIdle(tag smcopt.Tag, idle bool) (err error) {
	if idle {
		if err = os.Mkdir(h.idle(tag), 0o700); errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	if err = os.Remove(h.idle(tag)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Use says that one process more may mark sockets. When it returns, without an error, the programs are attached. A call of
// [Registration.Done] follows, whatever it returned. A new registration is as if it were used, until Rest is called.
func (r *Registration) Use() error {
	r.users.Add(1) // before the lock: Rest looks at it behind the lock
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tags == nil || !r.idle {
		return nil
	}
	unlock, err := r.host.lockExisting()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(r.host.set()); err != nil {
		return fmt.Errorf("somebody has removed the programs, mount the device anew: %w", err)
	}
	if err := r.host.setIdle(r.tag, false); err != nil {
		return err
	}
	tags, err := r.host.open()
	if err != nil {
		return err
	}
	r.idle = false
	return tags.Close()
}

// Done says that one process less may mark sockets, and reports whether it was the last. It does not wait for anything.
func (r *Registration) Done() (last bool) { return r.users.Add(-1) == 0 }

// Rest detaches the programs if no process uses any device and no socket waits. It returns false if they are only needed by
// sockets: call it again later. It returns true, and does nothing, if this device is used.
func (r *Registration) Rest() (done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tags == nil || r.users.Load() > 0 {
		return true, nil
	}
	if !r.host.wholeHost {
		return true, nil // it could not attach them again where they were: that may have been further up
	}
	unlock, err := r.host.lockExisting()
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := os.Stat(r.host.set()); errors.Is(err, os.ErrNotExist) {
		return true, nil // somebody has removed it by hand
	}
	if err := r.host.setIdle(r.tag, true); err != nil {
		return false, err
	}
	r.idle = true
	return r.host.detachIdle(r.waiting)
}

// waiting counts the sockets that wait. The counter is kept, since a device may come to rest often.
func (r *Registration) waiting() (n int, err error) {
	if r.counter == nil {
		if r.counter, err = r.host.newCounter(); err != nil {
			return 0, err
		}
	}
	return r.counter.count()
}

// detachIdle detaches the programs, unless they are needed: by a device, or by sockets, which waiting counts. The lock is held.
func (h host) detachIdle(waiting func() (int, error)) (done bool, err error) {
	devices, err := h.list()
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if d.Alive && !d.Idle {
			return true, nil // its daemon will see to it
		}
	}
	if n, err := waiting(); err != nil || n > 0 {
		return false, err
	}
	// Without this one no socket can be marked any more: those that are counted then are all there are.
	last := len(attachments) - 1
	if err := h.detach(attachments[last]); err != nil {
		return false, err
	}
	if n, err := waiting(); err != nil || n > 0 {
		tags, e := h.open()
		if e == nil {
			e = tags.Close()
		}
		return false, errors.Join(err, e)
	}
	for i := last - 1; i >= 0; i-- {
		if err := h.detach(attachments[i]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// detach detaches at once: a link that has lost its pin takes its time.
func (h host) detach(a attachment) error {
	pin := linkPin(h.set(), a.program)
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return h.damaged(err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		return typed(fmt.Errorf("detaching %v: %w", a.at, err))
	}
	return os.Remove(pin)
}
