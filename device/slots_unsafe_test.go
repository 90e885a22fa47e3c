// SPDX-License-Identifier: Apache-2.0

package device

import (
	"sync/atomic"
	"unsafe"

	"github.com/ismfs/ismfs/procs"
)

// writeSlots rewrites the first slot of mapped memory until stop closes, with a port and an inode that are the same number.
func writeSlots(mem []byte, stop <-chan struct{}) {
	seq := (*atomic.Uint32)(unsafe.Pointer(&mem[procs.OffSequence]))
	for i := uint16(0); ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		var b [procs.SlotLen]byte
		c := tcpConn(i)
		c.Inode = uint64(i)
		c.Put(&b)
		seq.Add(1)
		copy(mem[procs.OffSequence+4:procs.SlotLen], b[procs.OffSequence+4:])
		seq.Add(1)
		for range 2000 { // long enough for a reader to come between
			seq.Load()
		}
	}
}
