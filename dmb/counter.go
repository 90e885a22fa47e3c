// SPDX-License-Identifier: Apache-2.0

package dmb

import "math/bits"

// A Counter is one of the 65 numbers in a procs block, in the order of `smcd stats json` (docs/dmb-format.md 3.2).
type Counter int

// Counters. Those that end in Buf are the first of nine, one for each size: see [Counter.Sized].
const (
	IntTxBuf Counter = 9 * iota // SMC_INT_TX_BUF_8K …: buffers made, by size
	IntRxBuf                    // SMC_INT_RX_BUF_8K …
	UsrTxBuf                    // SMC_USR_TX_BUF_8K …: sends, by the size asked for
	UsrRxBuf                    // SMC_USR_RX_BUF_8K …: receives, by the size returned
)

const (
	TxSizeSmallPeer Counter = 36 + iota // SMC_INT_TX_BUF_SIZE_SM_PEER_CNT: sends larger than the peer's ring
	TxSizeSmall                         // SMC_INT_TX_BUF_SIZE_SM_CNT: sends larger than the send buffer
	TxFullPeer                          // SMC_INT_TX_BUF_FULL_PEER_CNT: the peer's ring was full
	TxFull                              // SMC_INT_TX_BUF_FULL_CNT: the send buffer was full
	TxReuse                             // SMC_INT_TX_BUF_REUSE_CNT
	TxAlloc                             // SMC_INT_TX_BUF_ALLOC_CNT
	TxDowngrade                         // SMC_INT_TX_BUF_DGRADE_CNT
	RxSizeSmallPeer                     // SMC_INT_RX_BUF_SIZE_SM_PEER_CNT
	RxSizeSmall                         // SMC_INT_RX_BUF_SIZE_SM_CNT: receives that asked for less than there was
	RxFullPeer                          // SMC_INT_RX_BUF_FULL_PEER_CNT
	RxFull                              // SMC_INT_RX_BUF_FULL_CNT: receives that met a full ring
	RxReuse                             // SMC_INT_RX_BUF_REUSE_CNT
	RxAlloc                             // SMC_INT_RX_BUF_ALLOC_CNT
	RxDowngrade                         // SMC_INT_RX_BUF_DGRADE_CNT
	ClientV1                            // SMC_CLNT_V1_SUCC_CNT
	ClientV2                            // SMC_CLNT_V2_SUCC_CNT
	ServerV1                            // SMC_SRV_V1_SUCC_CNT
	ServerV2                            // SMC_SRV_V2_SUCC_CNT
	SendPage                            // SMC_SENDPAGE_CNT
	UrgentData                          // SMC_URG_DATA_CNT
	Splice                              // SMC_SPLICE_CNT
	Cork                                // SMC_CORK_CNT
	NoDelay                             // SMC_NDLY_CNT
	RxBytes                             // SMC_RX_BYTES
	TxBytes                             // SMC_TX_BYTES; their sum over all processes is xfer_bytes
	RxCount                             // SMC_RX_CNT: calls
	TxCount                             // SMC_TX_CNT
	RxUsage                             // SMC_RX_RMB_USAGE: bytes of buffers in use, may fall
	TxUsage                             // SMC_TX_RMB_USAGE
)

// Sized returns the counter of the nine from c on that counts a size of n bytes, n > 0: up to 8 KiB, 16 KiB, … 1 MiB, and
// above (the kernel's SMC_STAT_PAYLOAD_SUB).
func (c Counter) Sized(n int) Counter {
	return c + Counter(min(bits.Len(uint(n-1)>>13), 8))
}
