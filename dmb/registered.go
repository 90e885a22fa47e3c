// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

const (
	pageSize = 4096
	hugePage = 2 << 20

	// A DMB of this size is merged, whatever dmb_copy says: it may be a doorbell page.
	alwaysMerged = 4096

	// maxSize keeps cursors within smc.Cursor's range. The device's own limit (max_dmb_size) is lower.
	maxSize = 1 << 30
)

// A Registered DMB is the caller's own: it reads the ring, its peer writes it. It is leased to this process and ends with
// Close.
type Registered struct {
	token     Token
	kind      tree.DMBType
	separated bool
	fd        int
	mapping   []byte

	producer, consumer *atomic.Uint64
	sequence           *atomic.Uint32
	wait               waitWord
}

// Register registers a DMB of size bytes, a multiple of 4096, under a random token, and populates its memory: what this
// process's memory cgroup cannot give is an error here. The knobs dmb_type and dmb_copy decide what it gets; the process's
// block tells dmb_type without a question to the device, and may be nil.
//
// Errors: syscall.ENODEV the device is off or draining, ENOSPC it has no room for another DMB, ENOMEM no memory left in the
// limits, EFBIG more than max_dmb_size, EINVAL no multiple of 4096, ENOTCONN the daemon is gone.
func Register(dev *tree.Device, size int, b *Block) (*Registered, error) {
	if size <= 0 || size%pageSize != 0 || size > maxSize {
		return nil, fmt.Errorf("DMB of %d bytes: %w: want a multiple of %d up to %d", size, syscall.EINVAL, pageSize, maxSize)
	}
	kind, err := kindFor(dev, b)
	if err != nil {
		return nil, err
	}
	r, err := create(dev)
	if err != nil {
		return nil, err
	}
	r.kind = kind
	if err := r.fill(size); err != nil {
		r.Close()
		return nil, fmt.Errorf("DMB %v of %d bytes: %w", r.token, size, err)
	}
	return r, nil
}

func kindFor(dev *tree.Device, b *Block) (tree.DMBType, error) {
	if b == nil {
		return dev.DMBType()
	}
	kind, _ := b.Settings()
	return kind, nil
}

// alignmentFor is the boundary at which a DMB is mapped: the kernel gives a page of some size only to a mapping that has room for it at a
// multiple of that size, and of itself it aligns no mapping of a file of the device. 0: below 1 MiB nothing is gained that would make up
// for the calls (docs/performance.md).
func alignmentFor(size int) int {
	switch {
	case size >= hugePage:
		return hugePage
	case size >= hugePage/2:
		return hugePage / 2
	}
	return 0
}

func create(dev *tree.Device) (*Registered, error) {
	for {
		t := newToken()
		fd, err := createFile(dmbPath(dev, t))
		if err == nil {
			return &Registered{token: t, fd: fd}, nil
		}
		if !errors.Is(err, syscall.EEXIST) {
			return nil, err
		}
	}
}

func dmbPath(dev *tree.Device, t Token) string { return filepath.Join(dev.Dir(), "dmbs", t.String()) }

// fill gives the file its size and maps it.
func (r *Registered) fill(size int) error {
	if err := truncate(r.fd, size); err != nil {
		return err
	}
	st, err := stat(r.fd)
	if err != nil {
		return err
	}
	r.separated = !st.readable
	contiguous := r.kind == tree.PhysContiguous
	align := 0
	if contiguous {
		align = alignmentFor(size)
	}
	if r.mapping, err = mapFile(r.fd, size, align); err != nil {
		return err
	}
	adviseHugePages(r.mapping, contiguous)
	if err := populate(r.mapping); err != nil {
		unpopulate(r.mapping) // else what there is stays charged until the device frees it
		return err
	}
	if contiguous && size >= hugePage {
		collapse(r.mapping)
	}
	r.producer = word64(r.mapping, smc.OffProducer)
	r.consumer = word64(r.mapping, smc.OffConsumer)
	r.sequence = word32(r.mapping, smc.OffSignal)
	r.wait = waitWord{word32(r.mapping, smc.OffWait)}
	return nil
}

// Type returns the kind of memory that was asked for: dmb_type as it was.
func (r *Registered) Type() tree.DMBType { return r.kind }

// Token returns the DMB's token.
func (r *Registered) Token() Token { return r.token }

// Size returns the DMB's size in bytes. The ring is [smc.CDCLen] shorter.
func (r *Registered) Size() int { return len(r.mapping) }

// Separated reports whether the peer writes by system call (dmb_copy 1). Such a peer cannot wake a futex: sleep on the bell.
func (r *Registered) Separated() bool { return r.separated }

// Ring returns the ring. The peer can change every byte of it at any time.
func (r *Registered) Ring() []byte { return r.mapping[smc.CDCLen:] }

// Producer loads the peer's producer word.
func (r *Registered) Producer() uint64 { return r.producer.Load() }

// Consumer loads the peer's consumer word.
func (r *Registered) Consumer() uint64 { return r.consumer.Load() }

// Met reports whether a peer was ever attached: it says so in the header. A DMB that is used again has had this peer before.
func (r *Registered) Met() bool {
	return word64(r.mapping, 0).Load() != 0 || r.Producer() != 0 || r.Consumer() != 0
}

// Waiting loads how a side of the peer waits. The value can be none of the constants.
func (r *Registered) Waiting(s Side) Wait { return r.wait.get(s) }

// ClearWaiting makes a side of the peer awake if it still waits as from says, and reports whether it did: who clears it owes
// the wake-up.
func (r *Registered) ClearWaiting(s Side, from Wait) bool { return r.wait.clear(s, from) }

// Sequence loads the signal sequence, for WaitSequence.
func (r *Registered) Sequence() uint32 { return r.sequence.Load() }

// WaitSequence sleeps while the signal sequence is seq, at most for timeout, and reports whether it was for that long. It
// holds a thread. It can return early for no reason.
func (r *Registered) WaitSequence(seq uint32, timeout time.Duration) (timedOut bool) {
	return futexWait(r.sequence, seq, timeout)
}

// Wake moves the signal sequence and wakes who sleeps on it: for events of the owner's own side.
func (r *Registered) Wake() {
	r.sequence.Add(1)
	futexWake(r.sequence, math.MaxInt32)
}

// Links returns the DMB's references: 2 with owner and peer, 1 before the peer has come or after it has gone, 0 once the
// device has withdrawn it. It asks the daemon: syscall.ENOTCONN if that is gone.
func (r *Registered) Links() (int, error) {
	st, err := stat(r.fd)
	return st.links, err
}

// Reset makes the DMB as a new one, for another connection between the same two processes. used is how much of the ring was
// written, from its beginning. Both sides must have said that they write no more.
//
// The signal sequence stays: it only ever moves, and a late wake-up harms nobody. So does the type, which the peer has written
// when it attached.
func (r *Registered) Reset(used int) {
	clear(r.mapping[smc.CDCLen:][:min(max(used, 0), len(r.mapping)-smc.CDCLen)])
	r.producer.Store(0)
	r.consumer.Store(0)
	r.wait.Store(0)
}

// Close unmaps the DMB and ends its lease.
func (r *Registered) Close() error {
	err := unmap(r.mapping)
	r.mapping = nil
	return errors.Join(err, closeFile(r.fd))
}
