// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/device"
	"github.com/ismfs/ismfs/smc"
)

// mountOptions are what `ismfs mount` can be told, by flags or by the same names in -o.
type mountOptions struct {
	foreground bool
	replace    bool
	debug      bool
	logFile    string
	source     string

	allowOther bool
	uid, gid   uint32
	mode       octal
	deviceGID  gidValue
	limits     device.Limits
	dmbType    uint8
	dmbCopy    uint8
	sockets    socketMode
	wait       device.Waiting
}

// flags declares the options with their defaults.
func (o *mountOptions) flags(f *pflag.FlagSet) error {
	ram, err := physicalMemory()
	if err != nil {
		return err
	}
	o.limits = device.DefaultLimits(ram)
	o.mode = 0o755
	o.sockets = socketsAuto
	f.BoolVarP(&o.foreground, "foreground", "f", false, "stay in the foreground, log to standard error (for systemd: Type=notify)")
	f.BoolVar(&o.replace, "replace", false, "take over the mount point of a dead daemon; refused on a live one")
	f.BoolVar(&o.debug, "debug", false, "log every FUSE request")
	f.StringVar(&o.logFile, "log", "", "log to this file; without it a daemon in the background logs to syslog")
	f.StringVar(&o.source, "source", "ismfs", "the name shown as the mount's source")
	f.BoolVar(&o.allowOther, "allow-other", os.Geteuid() == 0, "let in other uids than the mounting one")
	f.Uint32Var(&o.uid, "uid", uint32(os.Geteuid()), "owner shown for the tree's own files; unless 0 it may turn the controls")
	f.Uint32Var(&o.gid, "gid", uint32(os.Getegid()), "group shown for the tree's own files")
	f.Var(&o.mode, "mode", "octal permissions of the root directory: who has no x on it is not let in")
	f.Var(&o.deviceGID, "device-gid", "the device's GID (a UUID) instead of a random one")
	f.IntVar(&o.limits.MaxDMBs, "max-dmbs", o.limits.MaxDMBs, "how many DMBs there can be; a connection takes two, and each pair of processes two more")
	f.IntVar(&o.limits.MaxDMBsPerUID, "max-dmbs-per-uid", 0, "how many DMBs one uid can have (default: all)")
	f.Var((*byteSize)(&o.limits.MaxDMBSize), "max-dmb-size", "the largest DMB (K, M and G are understood)")
	f.Var((*byteSize)(&o.limits.MaxBytes), "max-bytes", "memory of all DMBs; the default is a quarter of RAM")
	f.Var((*byteSize)(&o.limits.MaxBytesPerUID), "max-bytes-per-uid", "memory of one uid's DMBs; the default is half of max-bytes")
	f.Uint8Var(&o.dmbType, "dmb-type", 0, "dmb_type to start with: 0 contiguous memory, 1 base pages")
	f.Uint8Var(&o.dmbCopy, "dmb-copy", 0, "dmb_copy to start with: 0 merged, 1 copied")
	f.Var(&o.sockets, "sockets", "SMC for TCP sockets, by eBPF programs: auto if they can be attached, require them, or off")
	f.Var(&o.wait, "wait", "how libsmc's connections may wait at most: busy (a program may ask never to sleep), adaptive or blocking")
	f.VarP(&optionList{flags: f}, "options", "o", "the same options as in fstab: NAME or NAME=VALUE, separated by commas")
	return nil
}

// check finishes the options once all are set, and refuses what makes no sense.
func (o *mountOptions) check(f *pflag.FlagSet) error {
	l := &o.limits
	if !f.Changed("max-bytes-per-uid") && f.Changed("max-bytes") {
		l.MaxBytesPerUID = l.MaxBytes / 2
	}
	if l.MaxDMBsPerUID == 0 {
		l.MaxDMBsPerUID = l.MaxDMBs
	}
	switch {
	case o.dmbType > 1:
		return fmt.Errorf("dmb_type is 0 or 1, not %d", o.dmbType)
	case o.dmbCopy > 1:
		return fmt.Errorf("dmb_copy is 0 or 1, not %d", o.dmbCopy)
	case l.MaxDMBs < 1 || l.MaxDMBs > 1<<20:
		return fmt.Errorf("max_dmbs is 1 to %d, not %d", 1<<20, l.MaxDMBs)
	case l.MaxDMBsPerUID < 1 || l.MaxDMBsPerUID > l.MaxDMBs:
		return fmt.Errorf("max_dmbs_per_uid is 1 to max_dmbs (%d), not %d", l.MaxDMBs, l.MaxDMBsPerUID)
	case l.MaxDMBSize < device.PageSize || l.MaxDMBSize > device.LargestDMBSize || l.MaxDMBSize%device.PageSize != 0:
		return fmt.Errorf("max_dmb_size is a multiple of 4096 from 4K to 1G, not %d", l.MaxDMBSize)
	case l.MaxBytes < device.PageSize:
		return fmt.Errorf("max_bytes is at least 4K, not %d", l.MaxBytes)
	case l.MaxBytesPerUID < device.PageSize || l.MaxBytesPerUID > l.MaxBytes:
		return fmt.Errorf("max_bytes_per_uid is 4K to max_bytes (%d), not %d", l.MaxBytes, l.MaxBytesPerUID)
	}
	return nil
}

// mountWords are options of mount(8) and fstab(5) that mean nothing to this file system or that it always keeps.
var mountWords = map[string]bool{
	"defaults": true, "rw": true, "auto": true, "noauto": true, "user": true, "nouser": true, "users": true, "owner": true,
	"group": true, "_netdev": true, "nofail": true, "nosuid": true, "nodev": true, "noexec": true, "noatime": true,
	"relatime": true, "async": true,
}

// optionList sets flags from a list as in fstab.
type optionList struct {
	flags  *pflag.FlagSet
	sloppy bool // pass over options that are not known
}

func (l *optionList) String() string { return "" }
func (l *optionList) Type() string   { return "list" }

func (l *optionList) Set(list string) error {
	for option := range strings.SplitSeq(list, ",") {
		name, value, hasValue := strings.Cut(option, "=")
		if name == "" || mountWords[name] || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "comment") {
			continue
		}
		flag := l.flags.Lookup(strings.ReplaceAll(name, "_", "-"))
		if flag == nil && l.sloppy {
			continue
		}
		if flag == nil || flag.Name == "options" || flag.Name == "help" {
			return fmt.Errorf("unknown mount option %q", name)
		}
		if !hasValue {
			if flag.NoOptDefVal == "" {
				return fmt.Errorf("mount option %q needs a value", name)
			}
			value = flag.NoOptDefVal
		}
		if err := l.flags.Set(flag.Name, value); err != nil {
			return fmt.Errorf("mount option %q: %w", option, err)
		}
	}
	return nil
}

// byteSize is a number of bytes with an optional K, M or G.
type byteSize int64

func (s *byteSize) Type() string { return "size" }

func (s *byteSize) String() string { return strconv.FormatInt(int64(*s), 10) }

func (s *byteSize) Set(v string) error {
	shift, digits := 0, v
	if n := len(v); n > 1 {
		if at := strings.IndexByte("kmg", v[n-1]|0x20); at >= 0 {
			shift, digits = 10*(at+1), v[:n-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is no size such as 65536, 64K, 16M or 1G", v)
	}
	*s = byteSize(n << shift)
	return nil
}

// octal is a permission mode.
type octal uint32

func (m *octal) Type() string   { return "mode" }
func (m *octal) String() string { return fmt.Sprintf("%04o", uint32(*m)) }

func (m *octal) Set(v string) error {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is no octal mode from 0 to 0777", v)
	}
	*m = octal(n)
	return nil
}

// gidValue is a device GID as a flag.
type gidValue struct{ smc.GID }

func (g *gidValue) Type() string { return "uuid" }

func (g *gidValue) String() string {
	if g.GID == (smc.GID{}) {
		return ""
	}
	return g.GID.String()
}

func (g *gidValue) Set(v string) (err error) {
	if g.GID, err = smc.ParseGID(v); err == nil && g.GID == (smc.GID{}) {
		err = errors.New("the zero GID names no device")
	}
	return err
}

func physicalMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("sysinfo: %w", err)
	}
	return int64(info.Totalram) * int64(info.Unit), nil
}
