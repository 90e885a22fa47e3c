// SPDX-License-Identifier: Apache-2.0

package device

import (
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/smc"
)

// The kernel's remaining device operations (struct smcd_ops; net/smc/smc_loopback.c, lo_ops).

// LocalGID is get_local_gid.
func (d *Device) LocalGID() smc.GID { return d.gid }

// GetCHID is get_chid.
func (d *Device) GetCHID() uint16 { return smc.CHIDLoopback }

// QueryRemoteGID is query_remote_gid: a loopback device reaches nobody but itself. Error: ENETUNREACH.
func (d *Device) QueryRemoteGID(g smc.GID) error {
	if g != d.gid {
		return unix.ENETUNREACH
	}
	return nil
}

// SupportDMBNoCopy is support_dmb_nocopy: whether a DMB registered now is merged with its sender's buffer.
func (d *Device) SupportDMBNoCopy() bool { return !d.DMBCopy() }

// SupportsV2 is supports_v2.
func (d *Device) SupportsV2() bool { return true }

// The operations that a device without VLANs and events does not have answer EOPNOTSUPP, as the first loopback device's
// did.

// AddVLANID is add_vlan_id.
func (d *Device) AddVLANID(uint64) error { return unix.EOPNOTSUPP }

// DelVLANID is del_vlan_id.
func (d *Device) DelVLANID(uint64) error { return unix.EOPNOTSUPP }

// SetVLANRequired is set_vlan_required.
func (d *Device) SetVLANRequired() error { return unix.EOPNOTSUPP }

// ResetVLANRequired is reset_vlan_required.
func (d *Device) ResetVLANRequired() error { return unix.EOPNOTSUPP }

// SignalEvent is signal_event.
func (d *Device) SignalEvent(smc.GID, uint32, uint32, uint64) error { return unix.EOPNOTSUPP }
