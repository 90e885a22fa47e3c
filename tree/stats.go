// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"encoding/json"
	"fmt"
)

// Stats is what the file stats holds.
type Stats struct {
	// SMCD holds the 65 counters of `smcd stats json` under their names there, SMC_TX_BYTES for one, summed over the
	// processes that live and those that are gone.
	SMCD map[string]uint64 `json:"SMCD"`

	Handshake Handshake   `json:"handshake"`
	Device    DeviceStats `json:"device"`
}

// Handshake is how handshakes ended that made no SMC connection, summed over the processes that live and those that are gone.
type Handshake struct {
	ClientErrors uint64 `json:"client_errors"`
	ServerErrors uint64 `json:"server_errors"`

	// How often it was TCP for which reason, under the kernel's names (PEERDECL for one, an smc.DeclineCode).
	ClientFallback map[string]uint64 `json:"client_fallback"`
	ServerFallback map[string]uint64 `json:"server_fallback"`
}

// DeviceStats describes the device and its daemon. Sizes are in bytes.
type DeviceStats struct {
	Version       string `json:"version"`         // of the daemon
	PID           int    `json:"pid"`             // of the daemon, in its own pid namespace
	UptimeSeconds int64  `json:"uptime_seconds"`  // since the mount
	Goroutines    int    `json:"goroutines"`      // of the daemon
	HeapLiveBytes uint64 `json:"heap_live_bytes"` // of the daemon, as its last garbage collection found them
	State         string `json:"state"`           // active, inactive or draining
	Epoch         uint64 `json:"epoch"`           // changes when the device is switched off or on

	MaxDMBs        uint64 `json:"max_dmbs"`
	MaxDMBSize     uint64 `json:"max_dmb_size"`
	MaxBytes       uint64 `json:"max_bytes"`
	MaxBytesPerUID uint64 `json:"max_bytes_per_uid"`
	MaxDMBsPerUID  uint64 `json:"max_dmbs_per_uid"`

	DMBs  uint64 `json:"dmbs"`  // registered now
	Bytes uint64 `json:"bytes"` // their sizes' sum

	Processes []Process `json:"processes"` // that the caller may see: own, or all if it is privileged
	Liars     []Liar    `json:"liars"`
}

// A Process is one that owns or is attached to DMBs, or has a procs block.
type Process struct {
	ID   uint32 `json:"id"` // in procs/, and in the inode numbers of its DMBs
	PID  int    `json:"pid"`
	UID  uint32 `json:"uid"`
	DMBs int    `json:"dmbs"` // owned or attached
}

// A Liar is a process whose counters are not believed, and so not counted.
type Liar struct {
	ID  uint32 `json:"id"` // in procs/
	PID int    `json:"pid"`
	UID uint32 `json:"uid"`
	Why string `json:"why"`
}

// Stats returns the device's statistics. Fields that this version does not know are passed over.
func (d *Device) Stats() (Stats, error) {
	text, err := d.read("stats")
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return Stats{}, fmt.Errorf("%s: %w", d.path("stats"), err)
	}
	return s, nil
}
