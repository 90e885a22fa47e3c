// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/tree"
)

// systemInfo is what `smcd info` prints, as JSON.
type systemInfo struct {
	SMCVersion   string   `json:"smc_version"`
	SMCHostname  string   `json:"smc_hostname"`
	SMCDFeatures []string `json:"smcd_features"`
	SMCRFeatures []string `json:"smcr_features"`
	SEID         *string  `json:"seid"`
	ISM          int      `json:"ism"`
	RoCE         int      `json:"roce"`
}

func newInfoCommand(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:   "info [show]",
		Short: "Show what this host's SMC can do through ismfs",
		Long: `Show the lines of "smcd info", with what is true of SMC through ismfs; the kernel's own SMC, if there
is one, is not in it.

SMC-D Features is v2 alone: a loopback device takes connections of SMC-D version 2.1 only. Version 1
finds its devices by PNET-ID, which a loopback device has none of; a v1 proposal is understood and
declined. There is no SMC-R, no RoCE, and no system EID, which only mainframes have. ISM counts the
loopback-ism devices, one for each mount.

JSON: {"info": {"smc_version": "2.1", "smc_hostname": "myhost", "smcd_features": ["v2"],
"smcr_features": [], "seid": null, "ism": 1, "roce": 0}}`,
		Args: words("show"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showInfo(cmd.OutOrStdout(), opts)
		},
	}
}

func showInfo(w io.Writer, opts *options) error {
	devices, err := opts.devices()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("asking for the host's name: %w", err)
	}
	info := systemInfo{
		SMCVersion:   "2.1",
		SMCHostname:  host,
		SMCDFeatures: []string{"v2"},
		SMCRFeatures: []string{},
		ISM:          len(devices),
	}
	if opts.json {
		return writeJSON(w, "info", info)
	}
	return writeInfo(w, info)
}

// writeInfo prints the lines of handle_gen_info_reply in smc-tools' info.c. Behind ISM stands how many there are, which smcd
// does not say.
func writeInfo(w io.Writer, info systemInfo) error {
	_, err := fmt.Fprintf(w, `Kernel Capabilities
SMC Version:      %s
SMC Hostname:     %s
SMC-D Features:   %s
SMC-R Features:   n/a

Hardware Capabilities
SEID:             n/a
ISM:              v2 (%d %s)
RoCE:             n/a
`, info.SMCVersion, info.SMCHostname, strings.Join(info.SMCDFeatures, " "), info.ISM, tree.DeviceName)
	return err
}
