// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// A mount helper is this program under a name that mount(8) looks for: /sbin/mount.ismfs for `mount -t ismfs`,
// /sbin/mount.fuse.ismfs for `mount -t fuse.ismfs`. mount(8) calls it with SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE].
func isMountHelper(name string) bool { return strings.HasPrefix(name, "mount.") }

// Exit codes that mount(8) gives a meaning to.
const (
	mountUsage  = 1
	mountFailed = 32
)

func runMountHelper(name string, args []string) int {
	err := mountHelper(name, args)
	if err == nil {
		return exitOK
	}
	if code := report(err); code == exitUsage {
		return mountUsage
	}
	return mountFailed
}

func mountHelper(name string, args []string) error {
	var o mountOptions
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	if err := o.flags(flags); err != nil {
		return err
	}
	var list, ignored, namespace string
	var fake, sloppy, none bool
	helper := pflag.NewFlagSet(name, pflag.ContinueOnError)
	helper.StringVarP(&list, "options", "o", "", "mount options")
	helper.StringVarP(&ignored, "type", "t", "", "file system type")
	helper.StringVarP(&namespace, "namespace", "N", "", "mount namespace")
	helper.BoolVarP(&fake, "fake", "f", false, "do all but mount")
	helper.BoolVarP(&none, "no-mtab", "n", false, "nothing: there is no mtab")
	helper.BoolVarP(&sloppy, "sloppy", "s", false, "ignore unknown options")
	helper.BoolVarP(&none, "verbose", "v", false, "nothing: errors say all")
	if err := helper.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "Usage: %s SOURCE MOUNTPOINT [-o OPTIONS]\nOptions are those of `ismfs mount --help`.\n", name)
			return nil
		}
		return usageError(err)
	}
	if helper.NArg() != 2 {
		return usageError(fmt.Errorf("%s takes SOURCE and MOUNTPOINT", name))
	}
	if namespace != "" {
		return usageError(fmt.Errorf("%s cannot mount in another namespace (-N): use nsenter -m", name))
	}
	if source := helper.Arg(0); source != "none" {
		flags.Set("source", source)
	}
	options := optionList{flags: flags, sloppy: sloppy}
	if err := options.Set(list); err != nil {
		return usageError(err)
	}
	if err := o.check(flags); err != nil {
		return usageError(err)
	}
	if fake {
		return nil
	}
	return mount(helper.Arg(1), &o, flags)
}
