// SPDX-License-Identifier: Apache-2.0

// Package device is the loopback-ism device in user space: the table of DMBs, their memory, owners and peers, the controls
// and the statistics. Its operations carry the names of the kernel's (net/smc/smc_loopback.c, struct smcd_ops).
//
// The kernel's device is called by one trusted caller, this one by any process on the host. So every operation that the
// kernel has no need to ask about takes a [Caller] and decides by it: who may register, attach, list, remove and steer.
//
// The package knows memory and ids. It knows nothing of FUSE or sockets: package fs shows a Device as files.
package device
