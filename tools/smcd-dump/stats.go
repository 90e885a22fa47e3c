// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/tree"
)

// statsOptions are those of `smcd stats`.
type statsOptions struct {
	details, absolute bool
}

func newStatsCommand(opts *options) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats [show | reset | json]",
		Short: "Show the statistics of one device",
		Long: `Show what the processes of one device have counted, in the lines of "smcd stats", with -d in more detail.
"json" prints the counters as "smcd stats json" does. Where several devices are mounted, --mount or
$ISMFS_MOUNT says whose counters are meant.

"reset" shows them and notes them down: from then on, this user is shown what has been added since, -a shows all.
The notes are in /tmp/.ismfsstats.uUID. Nothing is reset on the device. Buffer usage is what there is now,
in either case.

JSON, of --json: {"stats": {"SMCD": {"SMC_INT_TX_BUF_8K": 0, ...}, "handshake": {"client_errors": 0,
"server_errors": 0, "client_fallback": {"PEERDECL": 1, ...}, "server_fallback": {}}}}`,
		Example: "  smcd-dump stats\n  smcd-dump -d stats\n  smcd-dump stats reset",
		Args:    statsArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.details = o.details || opts.details
			o.absolute = o.absolute || opts.absolute
			return runStats(cmd.OutOrStdout(), opts, o, statsVerb(args))
		},
	}
	cmd.Flags().BoolVarP(&o.details, "details", "d", false, "show details")
	cmd.Flags().BoolVarP(&o.absolute, "absolute", "a", false, "show absolute values, whatever was reset")
	return cmd
}

// statsVerb is what the first argument shortens, "show" without one, empty for another word.
func statsVerb(args []string) string {
	if len(args) == 0 {
		return "show"
	}
	for _, verb := range []string{"show", "reset", "json"} {
		if strings.HasPrefix(verb, args[0]) {
			return verb
		}
	}
	return ""
}

func statsArgs(cmd *cobra.Command, args []string) error {
	switch {
	case statsVerb(args) == "":
		return fmt.Errorf("unexpected %q, try \"%s --help\"", args[0], cmd.CommandPath())
	case len(args) > 1:
		return fmt.Errorf("unexpected %q, try \"%s --help\"", args[1], cmd.CommandPath())
	}
	return nil
}

// A statistic is what is shown of a device's statistics, and noted down at a reset.
type statistic struct {
	SMCD      map[string]uint64 `json:"SMCD"`
	Handshake tree.Handshake    `json:"handshake"`
}

func runStats(w io.Writer, opts *options, o statsOptions, verb string) error {
	d, err := opts.device()
	if err != nil {
		return err
	}
	gid, err := d.GID()
	if err != nil {
		return err
	}
	now, err := d.Stats()
	if err != nil {
		return err
	}
	absolute := statistic{SMCD: now.SMCD, Handshake: now.Handshake}
	shown := absolute
	if !o.absolute {
		if shown, err = sinceReset(gid, absolute); err != nil {
			return fmt.Errorf("%w (-a shows the counters without it)", err)
		}
	}
	switch {
	case verb == "json":
		_, err = io.WriteString(w, statsJSON(shown))
	case opts.json:
		err = writeJSON(w, "stats", shown)
	default:
		_, err = io.WriteString(w, statsText(shown, o.details))
	}
	if verb == "reset" {
		err = errors.Join(err, writeBaseline(gid, absolute))
	}
	return err
}

// sinceReset takes off what was counted when the user reset the statistics. A baseline with which the counters would be
// negative is another device's, and counts as none.
func sinceReset(gid string, s statistic) (statistic, error) {
	base, err := readBaseline(gid)
	if err != nil || base == nil {
		return s, err
	}
	since, ok := s.minus(*base)
	if !ok {
		return s, nil
	}
	return since, nil
}

// minus subtracts all that only grows.
func (s statistic) minus(base statistic) (statistic, bool) {
	smcd := make(map[string]uint64, len(s.SMCD))
	ok := true
	less := func(a, b uint64) uint64 {
		ok = ok && a >= b
		return a - b
	}
	for i, name := range procs.CounterNames {
		v, known := s.SMCD[name]
		if !known {
			continue
		}
		if i < procs.FirstGauge {
			v = less(v, base.SMCD[name])
		}
		smcd[name] = v
	}
	reasons := func(now, then map[string]uint64) map[string]uint64 {
		m := make(map[string]uint64)
		for name, n := range now {
			if n = less(n, then[name]); n > 0 {
				m[name] = n
			}
		}
		return m
	}
	h, b := s.Handshake, base.Handshake
	since := statistic{SMCD: smcd, Handshake: tree.Handshake{
		ClientErrors:   less(h.ClientErrors, b.ClientErrors),
		ServerErrors:   less(h.ServerErrors, b.ServerErrors),
		ClientFallback: reasons(h.ClientFallback, b.ClientFallback),
		ServerFallback: reasons(h.ServerFallback, b.ServerFallback),
	}}
	return since, ok
}

// statsJSON is print_as_json of smc-tools' stats.c: the counters in its order.
func statsJSON(s statistic) string {
	var b strings.Builder
	b.WriteString(`{"SMCD": {`)
	for i, name := range procs.CounterNames {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%d", name, s.SMCD[name])
	}
	b.WriteString("}}\n")
	return b.String()
}
