// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
)

// A Report is what [Probe] has found.
type Report struct {
	Cgroup    string   // where this process would attach the programs
	WholeHost bool     // they see, or would see, the sockets of all processes, not only of this container
	BPFFS     bool     // a BPF file system is mounted on /sys/fs/bpf; if not, Attach mounts it
	Loads     bool     // this kernel and this process's privileges suffice for the programs
	Set       string   // directory of the set that is there, which pins its programs; empty: none
	Attached  bool     // its programs are; not while no process uses a device
	Devices   []Device // that it knows; those of dead daemons stay until the set goes
	Waiting   int      // sockets that keep it in place: marked listeners, connections not asked about
}

// Probe looks whether [Attach] would work, and at the set that is there. It loads the programs and lets them go; nothing is
// attached, mounted or changed. The error is what Attach would return; the report is valid as far as it goes.
func Probe() (Report, error) {
	h, err := thisHost()
	r := Report{Cgroup: h.cgroup, WholeHost: h.wholeHost, BPFFS: isBPFFS(h.bpffs)}
	if err != nil {
		return r, err
	}
	return r, h.probe(&r)
}

func (h host) probe(r *Report) error {
	c, err := h.load(nil)
	if err != nil {
		return err
	}
	c.Close()
	r.Loads = true
	if err = h.inspect(r); err != nil { // a set that was being made meanwhile can be locked by now
		err = h.inspect(r)
	}
	return err
}

// inspect looks at the set, while nobody changes it.
func (h host) inspect(r *Report) error {
	unlock, err := h.lockExisting()
	if err != nil {
		return err
	}
	defer unlock()
	r.Set = ""
	_, err = os.Stat(h.set())
	if errors.Is(err, os.ErrNotExist) {
		return h.noOtherSet()
	}
	if err != nil {
		return err
	}
	r.Set = h.set()
	wholeHost, err := h.attachedToRoot()
	switch {
	case err == nil:
		r.Attached, r.WholeHost = true, wholeHost
	case !errors.Is(err, errDetached):
		return err
	default:
		if err := h.noOtherAttached(); err != nil {
			return err
		}
	}
	if r.Devices, err = h.list(); err != nil {
		return err
	}
	r.Waiting, err = h.waiting()
	return err
}
