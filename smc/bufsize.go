// SPDX-License-Identifier: Apache-2.0

package smc

import "math/bits"

// Sizes of the DMBs of SMC connections, in bytes. On the wire a size is four
// bits n for 2^(n+14) bytes (smc_compress_bufsize).
const (
	MinBufSize = 16 << 10 // SMC_BUF_MIN_SIZE, n = 0
	MaxBufSize = 1 << 20  // SMCD_DMBE_SIZES, n = 6

	bufSizeShift      = 14
	maxCompressedSize = 6
)

// CompressBufSize returns the n of the smallest size that holds size bytes, at
// most that of MaxBufSize.
func CompressBufSize(size int) uint8 {
	if size <= MinBufSize {
		return 0
	}
	return uint8(min(bits.Len(uint(size-1)>>bufSizeShift), maxCompressedSize))
}

// UncompressBufSize returns the bytes that n stands for. The four bits on the
// wire can say more than MaxBufSize.
func UncompressBufSize(n uint8) int { return 1 << (n&0x0F + bufSizeShift) }
