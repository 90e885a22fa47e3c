// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bench"
)

func newBenchCommand() *cobra.Command {
	var o bench.Options
	var asJSON bool
	var plot string
	c := &cobra.Command{
		Use:   "bench [" + strings.Join(bench.RowNames, "|") + "]",
		Short: "Measure SMC beside TCP and Unix sockets",
		Long: strings.TrimSpace(`
Measures connections by libsmc (smc; smc-copy with dmb_copy 1) beside TCP and Unix sockets, in rounds in which each takes its
turn, with a process for each side. Every row is measured with each side on a CPU of its own, with both on one CPU, and
where the scheduler puts them.

It uses the device that is mounted (or ISMFS_MOUNT); without one, root mounts one for the run. An SMC row in which a
connection turns out to be TCP fails.

Nothing else should run meanwhile. Absolute figures of a shared or virtual machine drift; compare the ratios.`),
		Args: func(c *cobra.Command, args []string) error { return asUsage(c, cobra.MaximumNArgs(1)(c, args)) },
		RunE: func(c *cobra.Command, args []string) error {
			o.Rows = "all"
			if len(args) > 0 {
				o.Rows = args[0]
			}
			return runBench(c, o, asJSON, plot)
		},
	}
	benchFlags(c.Flags(), &o, &asJSON)
	c.Flags().StringVar(&plot, "plot", "", "also measure over sizes from 64 B to 1 MiB, and draw latency and bandwidth into this SVG file")
	c.AddCommand(newBenchWorkerCommand())
	return c
}

func benchFlags(f *pflag.FlagSet, o *bench.Options, asJSON *bool) {
	f.SortFlags = false
	f.StringSliceVar(&o.Transports, "transports", nil, "smc, smc-copy, smc-zerocopy, tcp, tcp-clc, unix, c-ring, c-ring-copy; smc@1m+busy: with buffers of 1 MiB, waiting busy (or adaptive, blocking); smc@1m+huge: of huge pages, dmb_type 0 (or base, 1) (default: as the row wants)")
	f.StringVar(&o.Pin, "pin", "all", "placement: two (CPUs), one (CPU), free or all")
	f.IntVar(&o.Rounds, "rounds", bench.DefaultRounds, "rounds; fewer than 5 are too few to compare by")
	f.DurationVar(&o.Duration, "duration", bench.DefaultDuration, "how long each measurement lasts, in each round")
	f.StringSliceVar(&o.Sizes, "size", nil, "message sizes in place of the rows' own: 14,100,64k")
	f.IntSliceVar(&o.Conns, "conns", nil, "numbers of connections in place of the rows' own")
	f.StringVar(&o.Buffer, "buffer", "", "buffer of SMC connections, 16k to 1m (default: libsmc's)")
	f.BoolVar(asJSON, "json", false, "print all rounds as JSON")
}

func runBench(c *cobra.Command, o bench.Options, asJSON bool, plot string) error {
	o.Command, o.Version, o.Sweep = []string{"/proc/self/exe"}, version, plot != ""
	if f := judgeMultiSize(readShmemPolicies(thpPath)); f.Status != statusOK {
		o.NoHugePages = f.Found + ": " + f.Mend
	}
	if _, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS); err == nil {
		o.Progress = showProgress
		defer fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	result, err := bench.Run(ctx, o)
	switch {
	case errors.Is(err, bench.ErrOptions):
		return usageError(err)
	case errors.Is(err, bench.ErrNoDevice):
		return withCode(exitNotMounted, err)
	case err != nil:
		return err
	}
	if plot != "" {
		if err := writePlot(plot, result); err != nil {
			return err
		}
	}
	if asJSON {
		err = printJSON(c.OutOrStdout(), result)
	} else {
		err = result.WriteTable(c.OutOrStdout())
	}
	if n := result.Failed(); err == nil && n > 0 {
		err = fmt.Errorf("%d measurements failed", n)
	}
	return err
}

func writePlot(path string, result *bench.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(result.WritePlot(f), f.Close())
}

func showProgress(n, of int, what string) {
	fmt.Fprintf(os.Stderr, "\r\x1b[K[%d/%d] %s", n, of, what)
}

func newBenchWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker",
		Short:  "One of bench's processes",
		Hidden: true,
		Args:   noArgs,
		RunE:   func(*cobra.Command, []string) error { return bench.RunWorker(os.Stdin, os.Stdout) },
	}
}
