// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/cilium/ebpf"

// Keys of the map of the programs' state.
const (
	outstandingKey = uint32(iota) // how many SYNs are answered and not established, or more
	floodedKey                    // there have been so many that some can have been forgotten
	doubtKey
)

// Of the entries of an LRU map each CPU keeps so many to itself, free or just added, before others are driven out for it
// (LOCAL_FREE_TARGET in the kernel, which newer ones lower where there are many CPUs).
const entriesOfCPU = 128

// safeOutstanding returns how many handshakes can be outstanding before the first one is driven out of the map of answered
// SYNs; half of that, since a wrong guess would break a promise and a low one costs next to nothing. With very many CPUs it is
// none.
func safeOutstanding(room uint32, cpus int) uint64 {
	return uint64(max(0, int64(room)-entriesOfCPU*(int64(cpus)+1))) / 2
}

// doubt makes questions fail to accepted sockets of which nothing is known, instead of meaning "plain": the programs are not
// attached for a moment, and such a socket may have come from a handshake that was answered with the option. The library then
// looks at the SYN that the kernel has saved. It stays so as long as the set.
func doubt(state *ebpf.Map) error { return state.Put(doubtKey, uint64(1)) }

// doubtIfOutstanding is for programs that have just been attached again: handshakes answered before may have ended meanwhile.
func doubtIfOutstanding(state *ebpf.Map) error {
	var n uint64
	if err := state.Lookup(outstandingKey, &n); err != nil || n == 0 {
		return err
	}
	return doubt(state)
}
