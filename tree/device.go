// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A State is what the file active says of the device.
type State string

const (
	Active   State = "1"     // DMBs can be registered
	Inactive State = "0"     // no new DMBs (ENODEV), all connections were aborted
	Draining State = "drain" // no new DMBs (ENODEV), what lives goes on
)

// A DMBType is the memory that DMBs registered from now on get.
type DMBType int

const (
	PhysContiguous DMBType = 0 // huge pages where the kernel gives them
	VirtContiguous DMBType = 1 // base pages
)

// A DMBCopy is how peers write into DMBs registered from now on.
type DMBCopy int

const (
	Merged    DMBCopy = 0 // sndbuf and DMB are one: the peer maps the DMB and writes in place
	Separated DMBCopy = 1 // the peer keeps a sndbuf and copies with pwrite
)

// A Device is a mounted loopback-ism device, reached through the files of its tree: each method opens one. It holds nothing
// open and may be used by many goroutines. After the daemon's death its methods fail with syscall.ENOTCONN.
type Device struct {
	point string
}

// Point returns the mount point, as an absolute path.
func (d *Device) Point() string { return d.point }

// Dir returns the directory that holds the device's files: MOUNT/devices/loopback-ism.
func (d *Device) Dir() string { return filepath.Join(d.point, "devices", DeviceName) }

// GID returns the device's 128-bit GID as UUID text; it is new at every mount.
func (d *Device) GID() (string, error) { return d.read("gid") }

// CHID returns the device's channel id, 0xffff for a loopback device.
func (d *Device) CHID() (uint16, error) {
	n, err := d.readUint("chid", 16, 16)
	return uint16(n), err
}

// Active returns the device's state.
func (d *Device) Active() (State, error) {
	text, err := d.read("active")
	if err != nil {
		return "", err
	}
	switch s := State(text); s {
	case Active, Inactive, Draining:
		return s, nil
	}
	return "", d.unexpected("active", text)
}

// SetActive switches the device on or off or drains it. Inactive aborts every connection; Draining is the safe switch.
// Errors: fs.ErrPermission for the unprivileged.
func (d *Device) SetActive(s State) error { return d.write("active", string(s)) }

// DMBType returns the setting of dmb_type.
func (d *Device) DMBType() (DMBType, error) {
	n, err := d.readSetting("dmb_type")
	return DMBType(n), err
}

// SetDMBType sets dmb_type, for DMBs registered after it.
// Errors: syscall.EINVAL for a type that is none, fs.ErrPermission for the unprivileged.
func (d *Device) SetDMBType(t DMBType) error { return d.write("dmb_type", strconv.Itoa(int(t))) }

// DMBCopy returns the setting of dmb_copy.
func (d *Device) DMBCopy() (DMBCopy, error) {
	n, err := d.readSetting("dmb_copy")
	return DMBCopy(n), err
}

// SetDMBCopy sets dmb_copy, for DMBs registered after it.
// Errors: syscall.EINVAL for a mode that is none, fs.ErrPermission for the unprivileged.
func (d *Device) SetDMBCopy(c DMBCopy) error { return d.write("dmb_copy", strconv.Itoa(int(c))) }

// XferBytes returns the payload bytes moved since activation, counted once, at the sender. What programs without a procs
// block move is not in it.
func (d *Device) XferBytes() (uint64, error) { return d.readUint("xfer_bytes", 10, 64) }

// DMBsCount returns how many DMBs are registered now, those of others included.
func (d *Device) DMBsCount() (uint64, error) { return d.readUint("dmbs_cnt", 10, 64) }

// DMBs returns the tokens of the caller's own DMBs, or of all for the privileged: 16 hex digits each.
func (d *Device) DMBs() ([]string, error) {
	entries, err := os.ReadDir(d.path("dmbs"))
	if err != nil {
		return nil, err
	}
	tokens := make([]string, len(entries))
	for i, e := range entries {
		tokens[i] = e.Name()
	}
	return tokens, nil
}

// ProcessID returns the procs id of the calling process, which the device gives it at the first question. It is unique on
// the host.
func (d *Device) ProcessID() (uint32, error) {
	target, err := os.Readlink(d.path("procs/self"))
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(target, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", d.path("procs/self"), err)
	}
	return uint32(id), nil
}

// UEIDs returns the user EIDs, in the order in which they are proposed, without the blanks that pad them to 32.
func (d *Device) UEIDs() ([]string, error) {
	lines, err := d.readLines("ueid")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return lines, err
}

// AddUEID adds a user EID: up to 32 of A-Z, 0-9, dot and hyphen, the first a letter or digit.
// Errors: syscall.EINVAL for another name, syscall.EEXIST, syscall.ERANGE when the table is full, fs.ErrPermission for the
// unprivileged.
func (d *Device) AddUEID(name string) error { return d.write("ueid", "+"+name) }

// DelUEID removes a user EID.
// Errors: syscall.EINVAL for a malformed name, syscall.ENOENT for one that is not there, fs.ErrPermission for the
// unprivileged.
func (d *Device) DelUEID(name string) error { return d.write("ueid", "-"+name) }
