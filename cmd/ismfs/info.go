// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/tree"
)

func newInfoCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "info",
		Short: "Show what is mounted where, in which mode, with what limits",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			infos, err := collectInfo()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(c.OutOrStdout(), infos)
			}
			if len(infos) == 0 {
				return withCode(exitNotMounted, errors.New("no ismfs is mounted here; ismfs mount MOUNTPOINT puts one up"))
			}
			return printInfo(c.OutOrStdout(), infos)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON list, empty without a mount")
	return c
}

// mountInfo is what is known of one mount.
type mountInfo struct {
	MountPoint string            `json:"mount_point"`
	Source     string            `json:"source"`
	Alive      bool              `json:"alive"`
	Error      string            `json:"error,omitempty"`
	GID        string            `json:"gid,omitempty"`
	DMBType    tree.DMBType      `json:"dmb_type"`
	DMBCopy    tree.DMBCopy      `json:"dmb_copy"`
	XferBytes  uint64            `json:"xfer_bytes"`
	UEIDs      []string          `json:"ueids,omitempty"`
	Sockets    bool              `json:"sockets"` // those of this process can use the device
	Device     *tree.DeviceStats `json:"device,omitempty"`
}

func collectInfo() ([]mountInfo, error) {
	mounts, err := tree.Mounts()
	if err != nil {
		return nil, err
	}
	infos := []mountInfo{}
	for _, m := range mounts {
		info := mountInfo{MountPoint: m.Point, Source: m.Source}
		if err := fillInfo(&info); err != nil {
			info.Error = err.Error()
			if errors.Is(err, unix.ENOTCONN) {
				info.Error = "the daemon has died; ismfs mount --replace " + m.Point + " brings the device back"
			}
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func fillInfo(info *mountInfo) error {
	d, err := tree.Find(info.MountPoint)
	if err != nil {
		return err
	}
	if info.GID, err = d.GID(); err != nil {
		return err
	}
	if info.DMBType, err = d.DMBType(); err != nil {
		return err
	}
	if info.DMBCopy, err = d.DMBCopy(); err != nil {
		return err
	}
	if info.XferBytes, err = d.XferBytes(); err != nil {
		return err
	}
	if info.UEIDs, err = d.UEIDs(); err != nil {
		return err
	}
	stats, err := d.Stats()
	if err != nil {
		return err
	}
	if info.Sockets, err = socketsCovered(d, info.GID); err != nil { // after stats: they count this process from then on
		return err
	}
	info.Alive, info.Device = true, &stats.Device
	return nil
}

func printInfo(w io.Writer, infos []mountInfo) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i, m := range infos {
		if i > 0 {
			fmt.Fprintln(tw)
		}
		fmt.Fprintf(tw, "Mount point:\t%s\n", m.MountPoint)
		if !m.Alive {
			state := "dead"
			if strings.Contains(m.Error, "permission denied") {
				state = "unknown"
			}
			fmt.Fprintf(tw, "State:\t%s: %s\n", state, m.Error)
			continue
		}
		s := m.Device
		fmt.Fprintf(tw, "GID:\t%s\n", m.GID)
		fmt.Fprintf(tw, "State:\t%s (epoch %d)\n", s.State, s.Epoch)
		fmt.Fprintf(tw, "Daemon:\tpid %d, version %s, up %d s\n", s.PID, s.Version, s.UptimeSeconds)
		fmt.Fprintf(tw, "New DMBs:\tdmb_type %d, dmb_copy %d\n", m.DMBType, m.DMBCopy)
		fmt.Fprintf(tw, "DMBs:\t%d of %d (one uid %d), each at most %s\n", s.DMBs, s.MaxDMBs, s.MaxDMBsPerUID, humanBytes(s.MaxDMBSize))
		fmt.Fprintf(tw, "Memory:\t%s of %s (one uid %s)\n", humanBytes(s.Bytes), humanBytes(s.MaxBytes), humanBytes(s.MaxBytesPerUID))
		fmt.Fprintf(tw, "Sockets:\t%s\n", map[bool]string{true: "SMC, for programs that use libsmc or run under smc_run", false: "TCP (mounted with --sockets=off, or the programs could not be attached: ismfs doctor tells why)"}[m.Sockets])
		fmt.Fprintf(tw, "Transferred:\t%d bytes since activation\n", m.XferBytes)
		for _, l := range s.Liars {
			fmt.Fprintf(tw, "Not counted:\tpid %d, uid %d: %s\n", l.PID, l.UID, l.Why)
		}
	}
	return tw.Flush()
}

func humanBytes(n uint64) string {
	for _, u := range []struct {
		size uint64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
