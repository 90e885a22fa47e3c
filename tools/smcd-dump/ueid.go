// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/tree"
)

func newUEIDCommand(opts *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ueid [COMMAND]",
		Short: "Show and change the user EIDs",
		Long: `Show, add and delete the device's user-defined enterprise IDs (User EIDs). Two programs use shared memory
only if they have one in common; all that use one device do, unless the table was flushed. Where several
devices are mounted, --mount or $ISMFS_MOUNT says whose table is meant.

An EID has 1 to 32 characters, A-Z, 0-9, '.' and '-'; the first is a letter or digit, and no two dots
follow each other. A table holds at most 4. Changing it takes the privileges of whoever mounted.

JSON, of the table as the command leaves it: {"ueid": ["NAME", ...]}`,
		Example: "  smcd-dump ueid\n  smcd-dump ueid add SITE-A\n  smcd-dump ueid del SITE-A",
		Args:    noOtherCommand,
	}
	cmd.RunE = ueidRunner(opts, nil)
	cmd.AddCommand(
		&cobra.Command{
			Use: "show", Short: "Show the User EIDs, one a line, padded to 32", Args: cobra.NoArgs,
			RunE: ueidRunner(opts, nil),
		},
		&cobra.Command{
			Use: "add NAME", Short: "Add a User EID", Args: oneName,
			RunE: ueidRunner(opts, addUEID),
		},
		&cobra.Command{
			Use: "del NAME", Short: "Delete a User EID", Args: oneName,
			RunE: ueidRunner(opts, delUEID),
		},
		&cobra.Command{
			Use: "flush", Short: "Delete all User EIDs: new connections stay TCP until one is added", Args: cobra.NoArgs,
			RunE: ueidRunner(opts, flushUEIDs),
		},
	)
	return cmd
}

func noOtherCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unknown command %q, try \"%s --help\"", args[0], cmd.CommandPath())
}

func oneName(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return fmt.Errorf("one User EID is needed: %s", cmd.UseLine())
}

// ueidRunner makes a command that changes the table, or with nil only shows it. As smcd's, a change prints nothing; with
// --json it prints the table.
func ueidRunner(opts *options, change func(*tree.Device, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		d, err := opts.device()
		if err != nil {
			return err
		}
		if change != nil {
			if err := change(d, args); err != nil {
				return err
			}
		}
		if change != nil && !opts.json {
			return nil
		}
		return showUEIDs(cmd.OutOrStdout(), d, opts.json)
	}
}

func showUEIDs(w io.Writer, d *tree.Device, asJSON bool) error {
	ueids, err := d.UEIDs()
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(w, "ueid", append([]string{}, ueids...)) // an empty table is [], not null
	}
	for _, ueid := range ueids {
		if _, err := fmt.Fprintf(w, "%-32s\n", ueid); err != nil {
			return err
		}
	}
	return nil
}

func addUEID(d *tree.Device, args []string) error {
	ueid, err := parseUEID(args[0])
	if err != nil {
		return err
	}
	return explain(d.AddUEID(ueid), map[syscall.Errno]string{
		syscall.EINVAL: "specified User EID was rejected by the device",
		syscall.ERANGE: "specified User EID was rejected because the maximum number of User EIDs is reached",
		syscall.EEXIST: "specified User EID is already defined",
	})
}

func delUEID(d *tree.Device, args []string) error {
	ueid, err := parseUEID(args[0])
	if err != nil {
		return err
	}
	return explain(d.DelUEID(ueid), map[syscall.Errno]string{
		syscall.EINVAL: "specified User EID is not defined",
		syscall.ENOENT: "specified User EID is not defined",
	})
}

func flushUEIDs(d *tree.Device, _ []string) error {
	ueids, err := d.UEIDs()
	if err != nil {
		return err
	}
	for _, ueid := range ueids {
		err := d.DelUEID(ueid)
		if errors.Is(err, syscall.ENOENT) { // somebody else was faster
			continue
		}
		if err != nil {
			return explain(err, nil)
		}
	}
	return nil
}

// explain says the device's answer in smcd's words where it has some.
func explain(err error, meanings map[syscall.Errno]string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("changing the User EIDs takes the privileges of whoever mounted: %w", err)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && meanings[errno] != "" {
		return errors.New(meanings[errno])
	}
	return err
}
