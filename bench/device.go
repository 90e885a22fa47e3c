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

// A device is what carries SMC.
type device struct {
	deviceInfo
	tree    *tree.Device
	command []string
	copy    tree.DMBCopy // as found
}

// ownMaxDMBs is enough for ten thousand connections, with their link groups.
const ownMaxDMBs = 25000

// openDevice returns the device that a program would use, or mounts one for this run.
func openDevice(command []string) (*device, error) {
	d := &device{command: command}
	found, err := tree.Find("")
	switch {
	case err == nil:
		d.tree, d.Point = found, found.Point()
	case !errors.Is(err, tree.ErrNoMount) && !errors.Is(err, tree.ErrDeadMount):
		return nil, fmt.Errorf("%w: %w; or measure without: --transports tcp,unix", ErrNoDevice, err)
	case os.Getenv(tree.EnvMount) != "":
		return nil, fmt.Errorf("%w: $%s: %w", ErrNoDevice, tree.EnvMount, err)
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("%w: nothing is mounted, and mounting needs root: sudo ismfs bench, or first sudo ismfs mount DIR; or measure without: --transports tcp,unix", ErrNoDevice)
	default:
		if err := d.mount(); err != nil {
			return nil, err
		}
	}
	if err := d.describe(); err != nil {
		return nil, errors.Join(err, d.unmount())
	}
	return d, nil
}

func (d *device) describe() (err error) {
	if d.copy, err = d.tree.DMBCopy(); err != nil {
		return err
	}
	if d.DMBType, err = d.tree.DMBType(); err != nil {
		return err
	}
	stats, err := d.tree.Stats()
	if err != nil {
		return err
	}
	d.MaxDMBs = stats.Device.MaxDMBs
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
	if d.tree, err = tree.Find(dir); err != nil {
		return errors.Join(err, d.unmount())
	}
	return nil
}

// ismfs runs a command of this program.
func (d *device) ismfs(args ...string) error {
	cmd := exec.Command(d.command[0], append(slices.Clone(d.command[1:]), args...)...)
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

// close leaves the device as it was found.
func (d *device) close() error { return errors.Join(d.set(d.copy), d.unmount()) }

func (d *device) unmount() error {
	if !d.Own {
		return nil
	}
	if err := d.ismfs("umount", "--force", d.Point); err != nil {
		return err
	}
	return os.Remove(d.Point)
}
