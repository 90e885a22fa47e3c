// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"sync/atomic"
	"unsafe"
)

// word64 and word32 are the shared words at an offset of a mapping. Mappings begin at a page, so an offset that is a
// multiple of the word's size makes it aligned; the slice expression checks that it lies inside.

func word64(mapping []byte, off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&mapping[off : off+8][0]))
}

func word32(mapping []byte, off int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&mapping[off : off+4][0]))
}
