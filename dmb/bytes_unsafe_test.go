// SPDX-License-Identifier: Apache-2.0

package dmb

import "unsafe"

// bytesOf returns words as bytes.
func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
}
