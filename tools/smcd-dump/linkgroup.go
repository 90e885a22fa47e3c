// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/tree"
)

func newLinkGroupCommand(opts *options) *cobra.Command {
	var details bool
	cmd := &cobra.Command{
		Use:   "linkgroup [show] [all | LG-ID]",
		Short: "Show the SMC-D link groups",
		Long: `Show one row for each link group that the caller may see, in the columns of "smcd linkgroup", or with -d
its details. A link group is what the connections between two processes have in common, those that one of
them opened to the other. Each of the two processes has its own end of it, with an id of its own, so whoever
sees both processes sees two. LG-ID is hexadecimal. Without link groups nothing is printed, as by smcd.

#Conns counts connections. DMB is the sum of the DMBs of this end that the other one has attached; Sndbuf
is 0, since send buffers apart from DMBs are not known to the device.

JSON: {"linkgroup": [{"id": 256, "role": "client", "conns": 4, "uid": 0, "pid": 1, "process_id": 1,
"peer_pid": 2, "peer_id": 2, "version": 2, "release": 1, "peer_os": 2, "peer_host": "myhost",
"eid": "NAME", "vlan": 0, "sndbuf_bytes": 0, "dmb_bytes": 262144}, ...]}`,
		Example: "  smcd-dump linkgroup\n  smcd-dump -d linkgroup show 00000100",
		Args:    linkGroupArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := wantedGroup(args)
			if err != nil {
				return err
			}
			return showLinkGroups(cmd.OutOrStdout(), opts, wanted, details || opts.details)
		},
	}
	cmd.Flags().BoolVarP(&details, "details", "d", false, "show details")
	return cmd
}

// linkGroupArgs accepts [show] [all | LG-ID].
func linkGroupArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && strings.HasPrefix("show", args[0]) {
		args = args[1:]
	}
	if len(args) > 1 {
		return fmt.Errorf("unexpected %q, try \"%s --help\"", args[1], cmd.CommandPath())
	}
	return nil
}

// wantedGroup returns which link groups are asked for. smcd takes what is no number for the id of none.
func wantedGroup(args []string) (func(tree.LinkGroup) bool, error) {
	if len(args) > 0 && strings.HasPrefix("show", args[0]) {
		args = args[1:]
	}
	if len(args) == 0 || strings.HasPrefix("all", args[0]) {
		return func(tree.LinkGroup) bool { return true }, nil
	}
	id, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(args[0]), "0x"), 16, 32)
	if err != nil {
		return nil, fmt.Errorf("%q is no link group id: up to 8 hexadecimal digits, as \"smcd-dump linkgroup\" shows them", args[0])
	}
	return func(g tree.LinkGroup) bool { return uint64(g.ID) == id }, nil
}

func showLinkGroups(w io.Writer, opts *options, wanted func(tree.LinkGroup) bool, details bool) error {
	devices, err := opts.devices()
	if err != nil {
		return err
	}
	groups := []tree.LinkGroup{}
	any := false
	for _, d := range devices {
		all, err := d.LinkGroups()
		if err != nil {
			return err
		}
		any = any || len(all) > 0
		for _, g := range all {
			if wanted(g) {
				groups = append(groups, g)
			}
		}
	}
	switch {
	case opts.json:
		return writeJSON(w, "linkgroup", groups)
	case details:
		return writeGroupDetails(w, groups)
	case any:
		return writeGroupTable(w, groups)
	}
	return nil
}

// writeGroupTable prints the columns of show_lgr_smcd_info in smc-tools' linkgroup.c. A loopback device has no PNET-ID.
func writeGroupTable(w io.Writer, groups []tree.LinkGroup) error {
	if _, err := fmt.Fprintln(w, "LG-ID    VLAN  #Conns  PNET-ID "); err != nil {
		return err
	}
	for _, g := range groups {
		if _, err := fmt.Fprintf(w, "%08x %4s  %6d  %-16s \n", g.ID, hexVLAN(g.VLAN), g.Conns, ""); err != nil {
			return err
		}
	}
	return nil
}

// hexVLAN is C's %#x, which has no prefix for 0.
func hexVLAN(v uint8) string {
	if v == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", v)
}

func writeGroupDetails(w io.Writer, groups []tree.LinkGroup) error {
	for i, g := range groups {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, `LG-ID    : %08x
VLAN     : %x
PNET-ID  : %s
Version  : %d
Peer-Rel : %d
Peer-Host: %s
Peer-OS  : %s
EID      : %-32s
#Conns   : %d
Sndbuf   : %d B
DMB      : %d B
`, g.ID, g.VLAN, "", g.Version, g.Release, g.PeerHost, osName(g.PeerOS), g.EID, g.Conns, g.SndBytes, g.DMBBytes)
		if err != nil {
			return err
		}
	}
	return nil
}

// osName is what smcd calls the operating systems of the first-contact extension.
func osName(os uint8) string {
	switch os {
	case 1:
		return "ZOS"
	case 2:
		return "LINUX"
	case 3:
		return "AIX"
	}
	return fmt.Sprintf("Unknown (0x%02x)", os)
}
