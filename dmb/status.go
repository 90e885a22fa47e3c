// SPDX-License-Identifier: Apache-2.0

package dmb

// A status is what the device says of an open file (docs/dmb-format.md 1.6).
type status struct {
	size  int64
	links int
	mode  uint32
	ino   uint64 // of a DMB: its owner's procs id, and 32 bits more
}

// othersRead is the permission that a separated DMB has not.
const othersRead = 0o004
