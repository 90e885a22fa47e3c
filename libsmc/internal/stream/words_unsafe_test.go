// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"unsafe"

	"github.com/ismfs/ismfs/dmb"
)

// counterAt is a counter in a procs block.
func counterAt(b *dmb.Block, c dmb.Counter) *uint64 {
	return (*uint64)(unsafe.Pointer(&b.Bytes()[64+8*int(c)]))
}
