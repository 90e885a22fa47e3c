// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// A DeviceState is what the device's word to a process says.
type DeviceState uint32

const (
	Inactive DeviceState = 0 // switched off: every connection has to end
	Active   DeviceState = 1
	Draining DeviceState = 2 // nothing new
)

// A Block is this process's procs block: the device's word to the process, and the process's counters. Without one, what
// the process moves is counted nowhere.
type Block struct {
	fd      int
	mapping []byte

	word, state, settings *atomic.Uint32
	epoch                 *atomic.Uint64
	counters              [procs.Counters]*atomic.Uint64

	slots slots
}

// OpenBlock opens the block of the calling process and makes it the first time, with size bytes: a multiple of 4096, at most
// 4 MiB. A block that has a size keeps it, and several opens share one block: its head and its counters. It lives as long as the
// process.
//
// Only one Block of a process may give out slots ([Block.NewSlot]): each counts the places for itself, and two would describe
// different things in the same one. In a program that uses package libsmc that is libsmc's.
func OpenBlock(dev *tree.Device, size int) (*Block, error) {
	path := filepath.Join(dev.Dir(), "procs", "self")
	fd, err := openOrCreateFile(path)
	if err != nil {
		return nil, err
	}
	b := &Block{fd: fd}
	if err := b.fill(size); err != nil {
		b.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func (b *Block) fill(size int) error {
	st, err := stat(b.fd)
	if err != nil {
		return err
	}
	has := st.size
	if has == 0 {
		if err := truncate(b.fd, size); err != nil {
			return err
		}
		has = int64(size)
	}
	if has < pageSize {
		return fmt.Errorf("a block of %d bytes", has)
	}
	if b.mapping, err = mapFile(b.fd, int(has), 0); err != nil {
		return err
	}
	if err := populate(b.mapping[:pageSize]); err != nil { // the rest when its slots are used
		return err
	}
	m, v := word32(b.mapping, procs.OffMagic).Load(), word32(b.mapping, procs.OffVersion).Load()
	if m != procs.Magic || v != procs.Version {
		return fmt.Errorf("magic %#x version %d: want %#x %d", m, v, procs.Magic, procs.Version)
	}
	b.word = word32(b.mapping, procs.OffWord)
	b.state = word32(b.mapping, procs.OffState)
	b.settings = word32(b.mapping, procs.OffSettings)
	b.epoch = word64(b.mapping, procs.OffEpoch)
	for i := range b.counters {
		b.counters[i] = word64(b.mapping, procs.OffCounters+8*i)
	}
	b.slots.init(b.mapping)
	return nil
}

// ID returns the process's id on the device, unique on the host.
func (b *Block) ID() uint32 { return word32(b.mapping, procs.OffID).Load() }

// State returns the device's state.
func (b *Block) State() DeviceState { return DeviceState(b.state.Load()) }

// Epoch returns the device's epoch: what was made in another one is not valid any more.
func (b *Block) Epoch() uint64 { return b.epoch.Load() }

// Settings returns the knobs dmb_type and dmb_copy as they stand.
func (b *Block) Settings() (tree.DMBType, tree.DMBCopy) {
	s := b.settings.Load()
	kind, mode := tree.PhysContiguous, tree.Merged
	if s&procs.SettingType != 0 {
		kind = tree.VirtContiguous
	}
	if s&procs.SettingCopy != 0 {
		mode = tree.Separated
	}
	return kind, mode
}

// Waiting returns what the mount allows of waiting: whether a program may wait without ever sleeping, and whether it may look for
// news before it sleeps.
func (b *Block) Waiting() (busy, spin bool) {
	s := b.settings.Load()
	return s&procs.SettingNoBusy == 0, s&procs.SettingNoSpin == 0
}

// Word loads the device word, which moves when the state, the settings or the epoch change and when a DMB of this process has
// lost its owner or its peer.
func (b *Block) Word() uint32 { return b.word.Load() }

// WaitWord sleeps while the device word is word, at most for timeout; 0 is for ever. It holds a thread. It can return early
// for no reason.
func (b *Block) WaitWord(word uint32, timeout time.Duration) { futexWait(b.word, word, timeout) }

// Wake moves the device word as the device does.
func (b *Block) Wake() {
	b.word.Add(1)
	futexWake(b.word, math.MaxInt32)
}

// Add adds to a counter.
func (b *Block) Add(c Counter, n uint64) { b.counters[c].Add(n) }

// AddFallback counts a connection that stays on TCP, in the role of the calling side. A code that is none counts as INTERR.
func (b *Block) AddFallback(r procs.Role, code smc.DeclineCode) {
	i := slices.Index(smc.DeclineCodes, code)
	if i < 0 {
		i = slices.Index(smc.DeclineCodes, smc.DeclIntErr)
	}
	word64(b.mapping, procs.OffFallback(r, i)).Add(1)
}

// AddHandshakeError counts a handshake that failed without a fallback.
func (b *Block) AddHandshakeError(r procs.Role) { word64(b.mapping, procs.OffHandshakeError(r)).Add(1) }

// Bytes returns the whole block, head included.
func (b *Block) Bytes() []byte { return b.mapping }

// Retire closes the block's file, for the block of a device that has gone. It stays mapped: what is still counted or described
// there nobody sees.
func (b *Block) Retire() error {
	if b.fd < 0 {
		return nil
	}
	err := closeFile(b.fd)
	b.fd = -1
	return err
}

// Close unmaps the block. The device keeps what was counted.
func (b *Block) Close() error {
	err := unmap(b.mapping)
	b.mapping = nil
	return errors.Join(err, b.Retire())
}
