// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
)

// The texts of the RFC's sysfs attributes ("[PATCH net-next 08/15] net/smc: introduce loopback-ism ...", smc_loopback.c).
var (
	typeTexts = map[device.Type]string{
		device.Physical: "0: Physically contiguous buffer",
		device.Virtual:  "1: Virtually contiguous buffer",
	}
	copyTexts = map[bool]string{
		false: "0: sndbuf and DMB merged and no data copied",
		true:  "1: sndbuf and DMB separated and data copied",
	}
	stateTexts = map[device.State]string{
		device.Inactive: "0",
		device.Active:   "1",
		device.Draining: "drain",
	}
)

// controls are the control files, in the order of the design's tree.
func (t *tree) controls() []control {
	d := t.dev
	text := func(show func() string) func(device.Caller) (string, error) {
		return func(device.Caller) (string, error) { return show() + "\n", nil }
	}
	return []control{
		{name: "gid", show: text(func() string { return d.LocalGID().String() })},
		{name: "chid", show: text(func() string { return fmt.Sprintf("%04x", d.GetCHID()) })},
		{name: "active", show: text(func() string { return stateTexts[d.State()] }), store: t.storeActive},
		{name: "dmb_type", show: text(func() string { return typeTexts[d.DMBType()] }), store: t.storeType},
		{name: "dmb_copy", show: text(func() string { return copyTexts[d.DMBCopy()] }), store: t.storeCopy},
		{name: "xfer_bytes", show: text(func() string { return strconv.FormatUint(d.XferBytes(), 10) })},
		{name: "dmbs_cnt", show: text(func() string { return strconv.Itoa(d.DMBCount()) })},
		{name: "ueid", show: t.showUEIDs, store: t.storeUEID},
		{name: "conns", show: t.showConns},
		{name: "linkgroups", show: t.showLinkGroups},
		{name: "stats", show: t.showStats},
	}
}

func (t *tree) storeActive(c device.Caller, v string) error {
	if v == "drain" {
		return t.dev.SetState(c, device.Draining)
	}
	on, ok := parseBool(v)
	if !ok {
		return unix.EINVAL
	}
	if on {
		return t.dev.SetState(c, device.Active)
	}
	return t.dev.SetState(c, device.Inactive)
}

// parseBool reads the words that the kernel's kstrtobool is documented to read, and no others.
func parseBool(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "1", "y", "yes", "t", "true", "on":
		return true, true
	case "0", "n", "no", "f", "false", "off":
		return false, true
	}
	return false, false
}

// parseUint reads a number as the kernel's kstrtouint does with base 0: decimal, octal after 0, hexadecimal after 0x, and
// none of Go's own forms.
func parseUint(s string) (value uint64, ok bool) {
	s = strings.ToLower(strings.TrimPrefix(s, "+"))
	base := 10
	if hex, is := strings.CutPrefix(s, "0x"); is {
		s, base = hex, 16
	} else if len(s) > 1 && s[0] == '0' {
		base = 8
	}
	value, err := strconv.ParseUint(s, base, 32)
	return value, err == nil
}

func (t *tree) storeType(c device.Caller, v string) error {
	n, ok := parseUint(v)
	if !ok {
		return unix.EINVAL
	}
	return t.dev.SetDMBType(c, device.Type(n))
}

func (t *tree) storeCopy(c device.Caller, v string) error {
	n, ok := parseUint(v)
	if !ok || n > 1 {
		return unix.EINVAL
	}
	return t.dev.SetDMBCopy(c, n == 1)
}

func (t *tree) showUEIDs(device.Caller) (string, error) {
	var b strings.Builder
	for _, e := range t.dev.UEIDs() {
		b.WriteString(e + "\n")
	}
	return b.String(), nil
}

func (t *tree) storeUEID(c device.Caller, v string) error {
	switch {
	case strings.HasPrefix(v, "+"):
		return t.dev.AddUEID(c, v[1:])
	case strings.HasPrefix(v, "-"):
		return t.dev.RemoveUEID(c, v[1:])
	}
	return unix.EINVAL
}
