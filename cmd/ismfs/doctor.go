// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine must have",
		Long: strings.TrimSpace(`
Looks at each thing that a device, its daemon and its clients need here: what was found, what its lack costs and how to
mend it. It mounts a device in a mount namespace of its own, where nobody else sees it, and moves bytes through it. It loads
the eBPF programs and attaches none.

It changes nothing on the machine. Run it as who will run the daemon, in the same container.`),
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			findings := examine()
			code, verdict := judge(findings)
			if err := printFindings(c.OutOrStdout(), findings, verdict, asJSON); err != nil {
				return err
			}
			if code != exitOK {
				return withCode(code, errReported)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON list of objects")
	c.AddCommand(newTrialClientCommand())
	return c
}

// Statuses of a finding.
const (
	statusOK      = "ok"
	statusWarn    = "warn"    // a device works without it, worse
	statusMissing = "missing" // no device without it
)

// A finding is what one check has found.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Found  string `json:"found"`
	Costs  string `json:"costs"` // what its lack costs; empty when ok
	Mend   string `json:"mend"`  // how to mend it; empty when ok

	privilege bool // a privilege is all that is missing
	sockets   bool // without it sockets stay TCP
}

func okay(format string, args ...any) finding {
	return finding{Status: statusOK, Found: fmt.Sprintf(format, args...)}
}

// A check has the name under which its finding is shown. The name is a promise to those who read the JSON.
type check struct {
	name string
	run  func() finding
}

var checks = []check{
	{"kernel", func() finding { return judgeKernel(kernelRelease()) }},
	{"fuse", func() finding { return judgeFUSE(openFUSE()) }},
	{"passthrough", func() finding { return judgeTrial(tryDevice()) }},
	{"privileges", func() finding { return judgePrivileges(ownPrivileges()) }},
	{"pid-namespace", func() finding { return judgePIDNamespace(ownPrivileges()) }},
	{"proc", func() finding { return judgeProc(lookAtProc()) }},
	{"pidfd", func() finding { return judgePidfd(tryPidfd()) }},
	{"memfd", func() finding { return judgeMemfd(tryMemfd()) }},
	{"cgroup2", func() finding { return judgeCgroup(lookAtBPF()) }},
	{"ebpf", func() finding { return judgeBPF(lookAtBPF()) }},
	{"bpffs", func() finding { return judgeBPFFS(lookAtBPF()) }},
	{"programs", func() finding { return judgeSet(lookAtBPF()) }},
	{"huge-pages", func() finding { return judgeHugePages(tryCollapse()) }},
	{"multi-size-pages", func() finding { return judgeMultiSize(readShmemPolicies(thpPath)) }},
	{"descriptors", func() finding { return judgeDescriptors(ownDescriptors()) }},
	{"memory", func() finding { return judgeMemory(physicalMemory()) }},
	{"mounts", func() finding { return judgeMounts(lookAtMounts()) }},
}

func examine() []finding {
	findings := make([]finding, len(checks))
	for i, c := range checks {
		findings[i] = c.run()
		findings[i].Name = c.name
	}
	return findings
}

// judge sums up: the exit code and a sentence.
func judge(findings []finding) (code int, verdict string) {
	var missing, warnings []string
	onlyPrivilege, sockets := true, true
	for _, f := range findings {
		switch f.Status {
		case statusMissing:
			missing = append(missing, f.Name)
			onlyPrivilege = onlyPrivilege && f.privilege
		case statusWarn:
			warnings = append(warnings, f.Name)
			sockets = sockets && !f.sockets
		}
	}
	switch {
	case len(missing) > 0 && onlyPrivilege:
		return exitNotPermitted, fmt.Sprintf("No device can be mounted from here: a privilege is missing (%s).", strings.Join(missing, ", "))
	case len(missing) > 0:
		return exitUnsupported, fmt.Sprintf("No device can be mounted here: %s missing.", strings.Join(missing, ", "))
	case !sockets:
		return exitOK, fmt.Sprintf("A device can be mounted here and programs can share its DMBs; sockets would stay TCP. To look at: %s.", strings.Join(warnings, ", "))
	case len(warnings) > 0:
		return exitOK, fmt.Sprintf("A device can be mounted here and programs can use it. To look at: %s.", strings.Join(warnings, ", "))
	}
	return exitOK, "A device can be mounted here and programs can use it."
}

func printFindings(w io.Writer, findings []finding, verdict string, asJSON bool) error {
	if asJSON {
		return printJSON(w, findings)
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%-7s  %-16s  %s\n", f.Status, f.Name, f.Found)
		if f.Status == statusOK {
			continue
		}
		fmt.Fprintf(w, "         costs: %s\n", f.Costs)
		fmt.Fprintf(w, "         mend:  %s\n", f.Mend)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict)
	return err
}
