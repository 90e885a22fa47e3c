// SPDX-License-Identifier: Apache-2.0

// Package fs shows a loopback-ism device as a FUSE tree:
//
//	MOUNT/devices/loopback-ism/
//	  gid chid active dmb_type dmb_copy xfer_bytes dmbs_cnt ueid conns linkgroups stats
//	  dmbs/<token>  bells/<token>  procs/<id>
//
// The files behave as sysfs files do; DMBs and procs blocks are memfds behind FUSE passthrough, so that no byte of them
// comes through the daemon; bells are FIFOs that the kernel serves alone. docs/tree.md is the contract.
//
// FUSE is mounted without default_permissions, since a peer of another uid must be able to open a DMB whose token it
// knows. So every operation here decides for itself, by the caller.
package fs
