// SPDX-License-Identifier: Apache-2.0

// Package procs is the layout of a procs block, the memory that a process shares with the device: the device's word to the
// process, the process's counters and the slots in which it describes its connections, listeners and link groups
// (docs/dmb-format.md, section 3). It reads and writes bytes and knows neither files nor memory.
//
// All numbers are in the host's byte order. What a process wrote is a claim: [ParseSlot] says whether it has the right form,
// never whether it is true.
package procs

// The head, written by the device.
const (
	Magic   = 0x504D5349 // "ISMP" in memory on little-endian hosts
	Version = 1

	OffMagic    = 0
	OffVersion  = 4
	OffID       = 8
	OffWord     = 12 // the device word, a futex: moves when something else in the head changes
	OffState    = 16
	OffSettings = 20
	OffEpoch    = 24
	OffDoes     = 32 // what the device does for this process
	HeadLen     = 36
)

// Bits of the settings word: the knobs as they stand.
const (
	SettingType = 1 << 0 // dmb_type
	SettingCopy = 1 << 1 // dmb_copy

	SettingNoBusy = 1 << 2 // the mount lets nobody wait without sleeping in the end
	SettingNoSpin = 1 << 3 // nor look for news before a sleep
)

// DoesFind in the word at OffDoes: the device finds the socket of a slot that tells its descriptor.
const DoesFind = 1 << 0

// The counters, written by the process.
const (
	OffCounters = 64
	Counters    = 65 // of 8 bytes each

	OffHandshakeErrors = 584 // as client, then as server
	OffFallbacks       = 640 // for each place in smc.DeclineCodes: as server, then as client
	MaxFallbacks       = 64  // codes that there is room for
	CountersEnd        = OffFallbacks + 16*MaxFallbacks
)

// FirstGauge is the first of the counters that may fall: the last two.
const FirstGauge = 63

// The slots: the rest of the block.
const (
	OffSlots = 2048
	SlotLen  = 128

	// MaxLen is the greatest length of a block.
	MaxLen = 4 << 20
)

// Slots returns how many slots a block of some length has.
func Slots(length int64) int { return int(max(length-OffSlots, 0) / SlotLen) }

// OffHandshakeError returns where handshake errors in a role are counted.
func OffHandshakeError(r Role) int {
	if r == Server {
		return OffHandshakeErrors + 8
	}
	return OffHandshakeErrors
}

// OffFallback returns where fallbacks in a role, for the code at place i of smc.DeclineCodes, are counted.
func OffFallback(r Role, i int) int {
	if r == Client {
		return OffFallbacks + 16*i + 8
	}
	return OffFallbacks + 16*i
}
