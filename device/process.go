// SPDX-License-Identifier: Apache-2.0

package device

// processOf returns the record of the process that the caller belongs to and whose pid has been looked up, a new one if need
// be. The lock is held.
func (d *Device) processOf(c Caller, pid int) (*Process, error) {
	if p := d.processes.find(pid); p != nil {
		return p, nil
	}
	return d.processes.add(pid, c.UID)
}

// ProcessID returns this device's id of the process that the caller belongs to: a number that no other process of the
// device has or gets.
func (d *Device) ProcessID(c Caller) (uint32, error) {
	pid, err := c.process()
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := d.processOf(c, pid)
	if err != nil {
		return 0, err
	}
	return p.ID, nil
}

// watchProcesses handles the exits of processes until the device closes.
func (d *Device) watchProcesses() {
	buf := make([]uint32, 0, 64)
	for {
		ids, ok := d.processes.waitExits(buf)
		if !ok {
			return
		}
		for _, id := range ids {
			d.processExited(id)
		}
	}
}

// processExited ends what hangs on the process itself rather than on its handles: the names of its DMBs, so that nobody
// attaches to what has no owner, and its counters. Its handles close by themselves, unless a child has inherited them.
func (d *Device) processExited(id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.processes.byID[id]
	if p == nil {
		return
	}
	p.gone = true
	d.processes.remove(p)
	d.endBlock(p)
	for m := range p.dmbs {
		if m.process == p && m.named {
			m.named = false
			delete(d.dmbs, m.Token)
			d.retired.add(m.Token)
			m.freeIfUnused()
		}
		m.tell()
	}
}
