// SPDX-License-Identifier: Apache-2.0

// Command smcd-dump shows what smcd and smcss of smc-tools show, for the loopback-ism devices that ismfs has mounted. All it knows
// it reads from their trees.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/tree"
)

// version is set by the Makefile from git.
var version = "devel"

func main() {
	if err := newCommand().Execute(); err != nil {
		os.Exit(1) // cobra has printed it
	}
}

// options are those that every object takes, and those that smcd takes before the object.
type options struct {
	mount string // a mount point, or empty
	json  bool

	details  bool
	absolute bool

	warnings io.Writer
}

func newCommand() *cobra.Command {
	cobra.EnablePrefixMatching = true // smcd takes any stem of an object's or command's name
	opts := &options{}
	root := &cobra.Command{
		Use:   "smcd-dump OBJECT [COMMAND]",
		Short: "Show the loopback-ism devices that ismfs has mounted, as smcd shows the kernel's",
		Long: `smcd-dump shows the SMC-D devices that ismfs has mounted on this host, in the words and columns of
smcd and smcss, the tools of smc-tools. It reads nothing but the files of the mounted trees.

Objects and commands may be shortened to any prefix that is unique: "smcd-dump d" is "smcd-dump device".`,
		Version:      version,
		SilenceUsage: true,
		// Flags before the object are smcd's; the same letters behind it can mean something else.
		TraverseChildren: true,
		Args:             knownObject,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { opts.warnings = cmd.ErrOrStderr() },
		RunE:             func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("smcd-dump utility, ismfs-{{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&opts.mount, "mount", "", "use the device mounted at this `DIR` only")
	flags.BoolVar(&opts.json, "json", false, "print JSON; each object's help tells its shape")
	root.Flags().BoolVarP(&opts.details, "details", "d", false, "show details (linkgroup, stats, sockets)")
	root.Flags().BoolVarP(&opts.absolute, "absolute", "a", false, "show absolute values (stats) or all sockets")
	root.AddCommand(newDeviceCommand(opts), newInfoCommand(opts), newLinkGroupCommand(opts), newSocketsCommand(opts),
		newStatsCommand(opts), newUEIDCommand(opts))
	return root
}

// knownObject refuses what no object's name starts with, in smcd's words, and what more than one starts with.
func knownObject(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var meant []string
	for _, c := range root.Commands() {
		if args[0] != "" && strings.HasPrefix(c.Name(), args[0]) {
			meant = append(meant, c.Name())
		}
	}
	if len(meant) == 0 {
		return fmt.Errorf("Object %q is unknown, try \"smcd-dump help\".", args[0])
	}
	return fmt.Errorf("Object %q is ambiguous: it could be %s.", args[0], strings.Join(meant, " or "))
}

// words accepts the given words, each optional and shortened to any prefix, in their order. They change nothing: they are
// what smcd has people type.
func words(known ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		rest := known
		for _, arg := range args {
			for len(rest) > 0 && !strings.HasPrefix(rest[0], arg) {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				return fmt.Errorf("unexpected %q, try \"%s --help\"", arg, cmd.CommandPath())
			}
			rest = rest[1:]
		}
		return nil
	}
}

// device returns the one device to act on.
func (o *options) device() (*tree.Device, error) {
	d, err := tree.Find(o.mount)
	if err == nil {
		return d, nil
	}
	if errors.Is(err, tree.ErrSeveralMounts) {
		return nil, fmt.Errorf("%w, or with --mount DIR", err)
	}
	return nil, notFound(err)
}

// devices returns the devices to show. It warns of mounts that do not answer, and fails only if none does.
func (o *options) devices() ([]*tree.Device, error) {
	if o.mount != "" {
		d, err := o.device()
		return []*tree.Device{d}, err
	}
	all, err := tree.Devices()
	if len(all) == 0 {
		return nil, notFound(err)
	}
	if err != nil {
		fmt.Fprintf(o.warnings, "Warning: not shown: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nWarning: not shown: "))
	}
	return all, nil
}

func notFound(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("SMC-D device not found: %w", err)
}
