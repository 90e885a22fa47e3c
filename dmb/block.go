// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ismfs/ismfs/tree"
)

// Layout of a procs block's head (docs/dmb-format.md 3.1).
const (
	blockMagic   = 0x504D5349
	blockVersion = 1

	offMagic    = 0
	offVersion  = 4
	offID       = 8
	offWord     = 12
	offState    = 16
	offEpoch    = 24
	offCounters = 64
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

	word, state *atomic.Uint32
	epoch       *atomic.Uint64
	counters    [counterCount]*atomic.Uint64
}

// OpenBlock opens the block of the calling process and makes it the first time, with size bytes: a multiple of 4096, at most
// 4 MiB. A block that has a size keeps it, and several opens share one block. It lives as long as the process.
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
	has, _, err := stat(b.fd)
	if err != nil {
		return err
	}
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
	if err := populate(b.mapping); err != nil {
		return err
	}
	if m, v := word32(b.mapping, offMagic).Load(), word32(b.mapping, offVersion).Load(); m != blockMagic || v != blockVersion {
		return fmt.Errorf("magic %#x version %d: want %#x %d", m, v, blockMagic, blockVersion)
	}
	b.word = word32(b.mapping, offWord)
	b.state = word32(b.mapping, offState)
	b.epoch = word64(b.mapping, offEpoch)
	for i := range b.counters {
		b.counters[i] = word64(b.mapping, offCounters+8*i)
	}
	return nil
}

// ID returns the process's id on the device, unique on the host.
func (b *Block) ID() uint32 { return word32(b.mapping, offID).Load() }

// State returns the device's state.
func (b *Block) State() DeviceState { return DeviceState(b.state.Load()) }

// Epoch returns the device's epoch: what was made in another one is not valid any more.
func (b *Block) Epoch() uint64 { return b.epoch.Load() }

// Word loads the device word, which moves when the state or the epoch changes and when a DMB of this process has lost its
// owner or its peer.
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

// Bytes returns the whole block, head included.
func (b *Block) Bytes() []byte { return b.mapping }

// Close unmaps the block. The device keeps what was counted.
func (b *Block) Close() error {
	err := unmap(b.mapping)
	b.mapping = nil
	return errors.Join(err, closeFile(b.fd))
}
