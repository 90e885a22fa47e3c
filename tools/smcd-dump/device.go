// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/tree"
)

// A deviceRow is a row of `smcd device`, and where the device is. FID, Type and PNETID are a loopback device's: 0 and empty.
type deviceRow struct {
	Mount      string `json:"mount"`
	GID        string `json:"gid"`
	FID        int    `json:"fid"`
	Type       int    `json:"type"`
	PCIID      string `json:"pci_id"`
	PCHID      string `json:"pchid"`
	InUse      bool   `json:"in_use"`
	LinkGroups int    `json:"linkgroups"`
	PNETID     string `json:"pnet_id"`
}

func newDeviceCommand(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:   "device [show] [all]",
		Short: "Show the SMC-D devices",
		Long: `Show one row for each mounted loopback-ism device, in the columns of "smcd device".

InUse and #LGs count the link groups that the caller may see. A loopback device is no PCI function
and has no PNET-ID, so FID and Type are 0 and the last column stays empty; --json tells several
devices apart.

JSON: {"device": [{"mount": "/run/ismfs", "gid": UUID, "fid": 0, "type": 0, "pci_id": "loopback-ism",
"pchid": "ffff", "in_use": false, "linkgroups": 0, "pnet_id": ""}, ...]}

Where one of several mounts does not answer, a warning says so, and the others are shown.`,
		Example: "  smcd-dump device\n  smcd-dump d --json",
		Args:    words("show", "all"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showDevices(cmd.OutOrStdout(), opts)
		},
	}
}

func showDevices(w io.Writer, opts *options) error {
	devices, err := opts.devices()
	if err != nil {
		return err
	}
	rows := make([]deviceRow, len(devices))
	for i, d := range devices {
		row, err := readDeviceRow(d)
		if err != nil {
			return err
		}
		rows[i] = row
	}
	if opts.json {
		return writeJSON(w, "device", rows)
	}
	return writeDeviceTable(w, rows)
}

func readDeviceRow(d *tree.Device) (deviceRow, error) {
	gid, err := d.GID()
	if err != nil {
		return deviceRow{}, err
	}
	chid, err := d.CHID()
	if err != nil {
		return deviceRow{}, err
	}
	groups, err := d.LinkGroups()
	if err != nil {
		return deviceRow{}, err
	}
	return deviceRow{
		Mount:      d.Point(),
		GID:        gid,
		PCIID:      tree.DeviceName,
		PCHID:      fmt.Sprintf("%04x", chid),
		InUse:      len(groups) > 0,
		LinkGroups: len(groups),
	}, nil
}

// writeDeviceTable prints the columns of print_devs_smcd_header and show_dev_smcd_info in smc-tools' dev.c, trailing blanks
// included.
func writeDeviceTable(w io.Writer, rows []deviceRow) error {
	if _, err := fmt.Fprintln(w, "FID  Type  PCI-ID        PCHID  InUse  #LGs  PNET-ID  "); err != nil {
		return err
	}
	for _, r := range rows {
		_, err := fmt.Fprintf(w, "%04x %-4d  %-12s  %-4s   %-4s  %5d  %-16s \n",
			r.FID, r.Type, r.PCIID, r.PCHID, yesNo(r.InUse), r.LinkGroups, r.PNETID)
		if err != nil {
			return err
		}
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}
