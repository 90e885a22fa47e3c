// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// ErrSize is what [Attach] wraps when a DMB has not the size that its owner said.
var ErrSize = errors.New("DMB of another size")

// An Attached DMB belongs to a peer: the caller writes its header and its ring. Where it is merged (dmb_copy 0) by storing
// into the mapping, where it is separated by pwrite, which can fail.
type Attached struct {
	token   Token
	size    int
	owner   uint32
	fd      int
	mapping []byte // nil: separated

	// In the mapping; nil if separated.
	producer, consumer *atomic.Uint64
	sequence           *atomic.Uint32
	wait               waitWord

	// What was last written of the wait state into a separated DMB: the two fields travel in one word.
	waitLock sync.Mutex
	waits    [4]byte

	fence atomic.Uint32 // written for the sake of the fence
}

// Attach attaches a peer's DMB, once in its life. size is what the peer said, in bytes.
//
// Errors: [ErrSize], syscall.ENOENT no such DMB, EBUSY it has or had a peer, EAGAIN it has no size yet, ENODEV the device is
// off, ENOMEM no memory to map it, ENOTCONN the daemon is gone.
func Attach(dev *tree.Device, t Token, size int) (*Attached, error) {
	fd, mappable, err := openForWriting(dmbPath(dev, t))
	if err != nil {
		return nil, err
	}
	a := &Attached{token: t, size: size, fd: fd}
	if err := a.fill(mappable); err != nil {
		a.Close()
		return nil, fmt.Errorf("attaching DMB %v: %w", t, err)
	}
	return a, nil
}

// StandIn returns memory in the place of a peer's DMB of size bytes that has gone before it could be attached: what is written
// there nobody reads. It has no token and no owner, is mapped, and Links fails.
func StandIn(size int) (*Attached, error) {
	mapping, err := mapAnonymous(size)
	if err != nil {
		return nil, err
	}
	a := &Attached{size: size, fd: -1}
	a.use(mapping)
	return a, nil
}

// openForWriting opens as the DMB's mode demands: a separated one refuses to be opened for reading.
func openForWriting(path string) (fd int, mappable bool, err error) {
	fd, err = openFile(path, readWrite)
	if errors.Is(err, syscall.EACCES) {
		fd, err = openFile(path, writeOnly)
		return fd, false, err
	}
	return fd, true, err
}

func (a *Attached) fill(mappable bool) error {
	st, err := stat(a.fd)
	if err != nil {
		return err
	}
	if st.size != int64(a.size) || st.size <= smc.CDCLen || st.size > maxSize {
		return fmt.Errorf("%w: %d bytes, not %d", ErrSize, st.size, a.size)
	}
	a.owner = st.owner
	if mappable {
		if err := a.mapIt(); err != nil {
			return err
		}
	}
	// The kernel writes its type with every CDC. It never changes, so once is enough.
	return a.storeType()
}

func (a *Attached) mapIt() error {
	mapping, err := mapFile(a.fd, a.size, alignmentFor(a.size))
	if err != nil {
		return err
	}
	a.use(mapping)
	return populate(a.mapping)
}

func (a *Attached) use(mapping []byte) {
	a.mapping = mapping
	a.producer = word64(a.mapping, smc.OffProducer)
	a.consumer = word64(a.mapping, smc.OffConsumer)
	a.sequence = word32(a.mapping, smc.OffSignal)
	a.wait = waitWord{word32(a.mapping, smc.OffWait)}
}

func (a *Attached) storeType() error {
	word := [8]byte{smc.CDCType}
	if a.mapping != nil {
		if word32(a.mapping, 0).Load() == pageWord {
			return nil // a doorbell page: its owner's word
		}
		word64(a.mapping, 0).Store(binary.NativeEndian.Uint64(word[:]))
		return nil
	}
	return a.pwrite(word[:], 0)
}

// Token returns the DMB's token.
func (a *Attached) Token() Token { return a.token }

// Owner returns the procs id of the process that registered the DMB, as the device has it; 0 is a shell's.
func (a *Attached) Owner() uint32 { return a.owner }

// Size returns the DMB's size in bytes. The ring is [smc.CDCLen] shorter.
func (a *Attached) Size() int { return a.size }

// Mapped reports whether the DMB is merged: whether Ring and Wake work.
func (a *Attached) Mapped() bool { return a.mapping != nil }

// Ring returns the ring, nil if the DMB is separated. Its owner can change every byte of it at any time.
func (a *Attached) Ring() []byte {
	if a.mapping == nil {
		return nil
	}
	return a.mapping[smc.CDCLen:]
}

// Put writes p into the ring at off. The caller keeps within the ring.
func (a *Attached) Put(p []byte, off int) error {
	if a.mapping != nil {
		fill(a.mapping[smc.CDCLen+off:][:len(p)], p)
		return nil
	}
	return a.pwrite(p, smc.CDCLen+off)
}

// StoreProducer publishes a producer word. What was put before is seen by who loads it.
func (a *Attached) StoreProducer(w uint64) error {
	if a.mapping != nil {
		a.producer.Store(w)
		return nil
	}
	return a.storeWord(w, smc.OffProducer)
}

// StoreConsumer publishes a consumer word.
func (a *Attached) StoreConsumer(w uint64) error {
	if a.mapping != nil {
		a.consumer.Store(w)
		return nil
	}
	return a.storeWord(w, smc.OffConsumer)
}

// StoreWaiting announces how one of the caller's sides waits.
//
// In a separated DMB it writes both fields, from what was announced before: one that the owner has cleared meanwhile can
// reappear. That costs a signal too many and loses none, since the signal for which it was cleared follows.
func (a *Attached) StoreWaiting(s Side, v Wait) error {
	if a.mapping != nil {
		a.wait.set(s, v)
		return nil
	}
	a.waitLock.Lock()
	a.waits[s] = byte(v)
	err := pwriteAll(a.fd, a.waits[:], smc.OffWait)
	a.waitLock.Unlock()
	a.fence.Add(1)
	return err
}

// Wake moves the owner's signal sequence and wakes it. Only for a DMB that is mapped.
func (a *Attached) Wake() {
	a.sequence.Add(1)
	futexWake(a.sequence, math.MaxInt32)
}

// Links returns the DMB's references: 2, 1 once its owner has gone, 0 once the device has withdrawn it. It asks the daemon:
// syscall.ENOTCONN if that is gone.
func (a *Attached) Links() (int, error) {
	st, err := stat(a.fd)
	return st.links, err
}

// Close unmaps the DMB and detaches from it.
func (a *Attached) Close() error {
	err := unmap(a.mapping)
	a.mapping = nil
	if a.fd < 0 {
		return err
	}
	return errors.Join(err, closeFile(a.fd))
}

// storeWord writes one word of the header in a call of its own: a longer pwrite can be seen half done.
func (a *Attached) storeWord(w uint64, off int) error {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], w)
	return a.pwrite(b[:], off)
}

// pwrite ends in a full fence, so that the caller's next load comes after the write: a locked instruction of one's own.
func (a *Attached) pwrite(p []byte, off int) error {
	err := pwriteAll(a.fd, p, off)
	a.fence.Add(1)
	return err
}
