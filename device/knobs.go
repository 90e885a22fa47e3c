// SPDX-License-Identifier: Apache-2.0

package device

import "golang.org/x/sys/unix"

// State returns whether the device takes part.
func (d *Device) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// SetState switches the device on, off or to draining. Off withdraws every DMB (its memory stays with who has it open) and
// tells every process; on begins a new epoch and a new count of xfer_bytes. To the same state is no change.
// Errors: EPERM not privileged, EINVAL draining from off.
func (d *Device) SetState(c Caller, s State) error {
	if err := d.CheckPrivileged(c); err != nil {
		return err
	}
	return d.setState(s, c)
}

// Drain lets nothing new begin. It is what the daemon itself does when it is asked to end.
func (d *Device) Drain() {
	d.setState(Draining, Caller{}) // fails only for a device that is off, where nothing is left to drain
}

func (d *Device) setState(s State, by Caller) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == d.state {
		return nil
	}
	if s == Draining && d.state == Inactive {
		return unix.EINVAL
	}
	d.log.Info("state changes", "from", d.state, "to", s, "uid", by.UID, "thread", by.TID)
	was := d.state
	d.state = s
	if was == Inactive || s == Inactive {
		d.epoch++
	}
	if was == Inactive {
		d.resetXfer()
	}
	d.tellAll()
	if s == Inactive {
		d.withdrawAll() // after: who finds its DMB withdrawn can see why
	}
	return nil
}

// withdrawAll ends every DMB, as the kernel ends every link group when its device is deactivated. The lock is held.
func (d *Device) withdrawAll() {
	for m := range d.all {
		m.withdrawn = true
		m.tell()
		m.unregister()
	}
}

// DMBType returns what kind of memory DMBs registered from now on get.
func (d *Device) DMBType() Type {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dmbType
}

// SetDMBType decides what kind of memory DMBs registered from now on get, and tells every process. Errors: EPERM not privileged, EINVAL.
func (d *Device) SetDMBType(c Caller, t Type) error {
	if t != Physical && t != Virtual {
		return unix.EINVAL
	}
	if err := d.CheckPrivileged(c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t != d.dmbType {
		d.dmbType = t
		d.tellAll()
	}
	return nil
}

// DMBCopy returns whether peers of DMBs registered from now on write them (true) or map them.
func (d *Device) DMBCopy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dmbCopy
}

// SetDMBCopy decides whether peers of DMBs registered from now on write them (true) or map them, and tells every process.
// Error: EPERM not privileged.
func (d *Device) SetDMBCopy(c Caller, on bool) error {
	if err := d.CheckPrivileged(c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if on != d.dmbCopy {
		d.dmbCopy = on
		d.tellAll()
	}
	return nil
}

// UEIDs returns the user EIDs in the order they were added.
func (d *Device) UEIDs() []string { return d.ueids.list() }

// AddUEID adds a user EID. Errors: EPERM not privileged, EINVAL malformed, EEXIST, ERANGE four are there.
func (d *Device) AddUEID(c Caller, name string) error {
	if err := d.CheckPrivileged(c); err != nil {
		return err
	}
	return d.changeUEIDs(d.ueids.add, name)
}

// RemoveUEID removes a user EID. Errors: EPERM not privileged, EINVAL malformed, ENOENT.
func (d *Device) RemoveUEID(c Caller, name string) error {
	if err := d.CheckPrivileged(c); err != nil {
		return err
	}
	return d.changeUEIDs(d.ueids.remove, name)
}

// changeUEIDs changes the table and moves the device words, for processes that keep a copy.
func (d *Device) changeUEIDs(change func(string) error, name string) error {
	if err := change(name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tellAll()
	return nil
}

// DMBCount returns how many DMBs are registered or still held.
func (d *Device) DMBCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.quota.total.dmbs
}

// LeasedDMBs returns how many DMBs are leased to a live handle.
func (d *Device) LeasedDMBs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for m := range d.all {
		if m.Leased {
			n++
		}
	}
	return n
}
