// SPDX-License-Identifier: Apache-2.0

// Command ismfs mounts and tends loopback-ism devices: the Linux kernel's SMC-D loopback-ism in user space.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the Makefile from git.
var version = "devel"

func main() {
	os.Exit(run(os.Args))
}

func run(args []string) int {
	if isMountHelper(filepath.Base(args[0])) {
		return runMountHelper(args[0], args[1:])
	}
	root := newRootCommand()
	root.SetArgs(args[1:])
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	return report(err)
}

// report prints an error, unless the daemon that we started has printed it, and returns the exit code.
func report(err error) int {
	if !errors.Is(err, errReported) {
		fmt.Fprintf(os.Stderr, "ismfs: %v\n", err)
	}
	return exitCode(err)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ismfs",
		Short: "SMC-D loopback-ism in user space",
		Long: strings.TrimSpace(`
ismfs puts up a loopback-ism device as a tree of files: shared buffers (DMBs) that any program can map, and controls that
cat and echo read and write.

Exit codes:
` + exitCodeHelp()),
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return asUsage(c, err)
	})
	root.AddCommand(newMountCommand(), newUmountCommand(), newInfoCommand(), newDoctorCommand(), newBenchCommand(), newVersionCommand())
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "ismfs", version)
			return err
		},
	}
}

// noArgs and oneArg are cobra's, with the exit code for wrong usage and the way to the help.
func noArgs(c *cobra.Command, args []string) error { return asUsage(c, cobra.NoArgs(c, args)) }

func oneArg(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	_, name, _ := strings.Cut(c.Use, " ")
	return asUsage(c, fmt.Errorf("%s takes one %s, not %d", c.CommandPath(), name, len(args)))
}

func asUsage(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return usageError(fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath()))
}
