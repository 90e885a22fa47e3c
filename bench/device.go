// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/ismfs/ismfs/tree"
)

// ErrNoDevice is wrapped by what Run says where there is no device for SMC.
var ErrNoDevice = errors.New("no device for SMC")

type deviceInfo struct {
	Point   string       `json:"mount_point"`
	Own     bool         `json:"own"` // mounted for this run
	MaxDMBs uint64       `json:"max_dmbs"`
	DMBType tree.DMBType `json:"dmb_type"`
}

// A device is what carries SMC: one that was found, or one that is mounted for the run when it is first needed.
type device struct {
	deviceInfo
	command   []string
	tree      *tree.Device // nil: not there
	why       error        // it is not there
	copy      tree.DMBCopy // as found
	turned    bool         // dmb_type is not as found
	steerable bool         // its knobs can be turned
}

// ownMaxDMBs is enough for ten thousand connections, with their link groups.
const ownMaxDMBs = 25000

// findDevice looks for the device that a program would use.
func findDevice(command []string) (*device, error) {
	d := &device{command: command}
	found, err := tree.Find("")
	if err != nil {
		d.why = err
		return d, nil
	}
	d.tree, d.Point = found, found.Point()
	return d, d.describe()
}

func (d *device) found() bool { return d.tree != nil }

// mountUnlessFound has a device there.
func (d *device) mountUnlessFound() error {
	if d.found() {
		return nil
	}
	if err := d.mountable(); err != nil {
		return err
	}
	return d.mount()
}

// mountable returns why a device cannot be mounted, or must not, as far as that is known before it is tried.
func (d *device) mountable() error {
	without := "; or measure without: --transports tcp,unix"
	switch {
	case !errors.Is(d.why, tree.ErrNoMount) && !errors.Is(d.why, tree.ErrDeadMount), os.Getenv(tree.EnvMount) != "":
		return fmt.Errorf("%w: %w%s", ErrNoDevice, d.why, without)
	case os.Geteuid() != 0:
		return fmt.Errorf("%w: none is mounted, and mounting needs root: sudo ismfs bench, or first sudo ismfs mount DIR%s", ErrNoDevice, without)
	}
	return nil
}

func (d *device) mount() error {
	dir, err := os.MkdirTemp("", "ismfs-bench-")
	if err != nil {
		return err
	}
	d.Point, d.Own = dir, true
	if err := d.ismfs("mount", "--sockets=require", fmt.Sprintf("--max-dmbs=%d", ownMaxDMBs), dir); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrNoDevice, err), os.Remove(dir))
	}
	if d.tree, err = tree.Find(dir); err == nil {
		err = d.describe()
	}
	if err != nil {
		return errors.Join(err, d.unmount())
	}
	return nil
}

func (d *device) describe() (err error) {
	if d.copy, err = d.tree.DMBCopy(); err != nil {
		return err
	}
	d.steerable = d.tree.SetDMBCopy(d.copy) == nil
	if d.DMBType, err = d.tree.DMBType(); err != nil {
		return err
	}
	stats, err := d.tree.Stats()
	if err != nil {
		return err
	}
	d.MaxDMBs = min(stats.Device.MaxDMBs, stats.Device.MaxDMBsPerUID)
	return nil
}

// ismfs runs a command of this program.
func (d *device) ismfs(args ...string) error {
	cmd := exec.Command(d.command[0], append(slices.Clone(d.command[1:]), args...)...)
	cmd.SysProcAttr = ownGroup
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ismfs %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// setCopy sets dmb_copy for the DMBs of the next cell.
func (d *device) setCopy(on bool) error {
	want := tree.Merged
	if on {
		want = tree.Separated
	}
	return d.set(want)
}

func (d *device) set(want tree.DMBCopy) error {
	have, err := d.tree.DMBCopy()
	if err != nil || have == want {
		return err
	}
	if err := d.tree.SetDMBCopy(want); err != nil {
		return fmt.Errorf("setting dmb_copy of %s to %d: %w", d.Point, want, err)
	}
	return nil
}

// setPages sets dmb_type for the DMBs of the next cell.
func (d *device) setPages(p pages) error {
	want, ok := dmbTypes[p]
	if !ok {
		want = d.DMBType
	}
	if !d.turned && want == d.DMBType {
		return nil
	}
	if err := d.tree.SetDMBType(want); err != nil {
		return fmt.Errorf("setting dmb_type of %s to %d: %w", d.Point, want, err)
	}
	d.turned = want != d.DMBType
	return nil
}

// room returns how many connections with DMBs of some size there is room for, between processes that have one already, and what
// limits them. files is how many files a process may open: an own device's daemon has one for each DMB.
func (d *device) room(dmbSize, files int) (n int, limit string, err error) {
	stats, err := d.tree.Stats()
	if err != nil {
		return 0, "", err
	}
	const spare = 64 // link groups, and what others register meanwhile
	s := stats.Device
	most := min(s.MaxDMBs, s.MaxDMBsPerUID)
	limit = fmt.Sprintf("--max-dmbs is %d", most)
	if own := uint64(max(files-ownFiles, 0)); d.Own && own < most {
		most, limit = own, fmt.Sprintf("the daemon has a file for each DMB, and may open %d (ulimit -Hn)", files)
	}
	dmbs := most - min(s.DMBs+spare, most)
	bytes := min(s.MaxBytes, s.MaxBytesPerUID)
	if n := (bytes - min(s.Bytes, bytes)) / uint64(dmbSize); n < dmbs {
		dmbs, limit = n, fmt.Sprintf("--max-bytes is %d", bytes)
	}
	return int(dmbs / 2), limit, nil
}

// ownFiles is what the daemon opens beside DMBs for a run.
const ownFiles = 128

// close leaves the machine as it was found.
func (d *device) close() error {
	if !d.found() {
		return nil
	}
	if d.Own {
		return d.unmount()
	}
	return errors.Join(d.set(d.copy), d.setPages(""))
}

func (d *device) unmount() error {
	d.tree = nil
	if err := d.ismfs("umount", "--force", d.Point); err != nil {
		return err
	}
	return os.Remove(d.Point)
}
