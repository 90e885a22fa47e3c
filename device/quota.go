// SPDX-License-Identifier: Apache-2.0

package device

import "golang.org/x/sys/unix"

// Limits bound what a device gives out.
type Limits struct {
	MaxDMBs        int   // DMBs of the device
	MaxDMBsPerUID  int   // DMBs of one uid
	MaxDMBSize     int64 // bytes of one DMB, a multiple of 4096
	MaxBytes       int64 // bytes of all DMBs and procs blocks
	MaxBytesPerUID int64 // the same of one uid
}

// Bounds of what can be asked for.
const (
	PageSize        = 4096     // the unit of sizes, and the smallest DMB
	DefaultDMBs     = 5000     // SMC_LO_MAX_DMBS
	DefaultDMBSize  = 16 << 20 // the largest DMB unless the mount says otherwise
	LargestDMBSize  = 1 << 30  // the largest that a mount can allow
	ramShare        = 4        // all DMBs of a device get at most one in this many bytes of RAM
	uidShareOfTotal = 2        // and one uid one in this many of those

	// Looks that can be open at once: each costs the daemon a descriptor that no DMB and no process accounts for, and who
	// takes all descriptors stops the device for everybody. Who is privileged is not counted.
	maxLooks       = 1024
	maxLooksPerUID = 256
)

// DefaultLimits are the limits for a machine with so many bytes of RAM.
func DefaultLimits(ram int64) Limits {
	return Limits{
		MaxDMBs:        DefaultDMBs,
		MaxDMBsPerUID:  DefaultDMBs,
		MaxDMBSize:     DefaultDMBSize,
		MaxBytes:       ram / ramShare,
		MaxBytesPerUID: ram / ramShare / uidShareOfTotal,
	}
}

// MaxProcesses is how many processes the device knows at once: each can have a DMB, and a few more can look around.
func (l Limits) MaxProcesses() int { return max(l.MaxDMBs, 1024) }

// Files is how many descriptors a device with these limits can come to hold.
func (l Limits) Files() int { return l.MaxDMBs + l.MaxProcesses() + maxLooks }

// use is what somebody has of a device.
type use struct {
	dmbs     int
	bytes    int64
	unsealed int // memories whose size is still open; their bytes are a reservation
	looks    int // handles that look at what they do not hold
}

// quota keeps count of use against the limits. The device's lock protects it.
type quota struct {
	limits Limits
	total  use
	perUID map[uint32]*use
}

func newQuota(l Limits) *quota { return &quota{limits: l, perUID: make(map[uint32]*use)} }

func (q *quota) of(uid uint32) *use {
	u := q.perUID[uid]
	if u == nil {
		u = new(use)
		q.perUID[uid] = u
	}
	return u
}

func (q *quota) settle(uid uint32) {
	if u := q.perUID[uid]; u != nil && *u == (use{}) {
		delete(q.perUID, uid)
	}
}

// addDMB takes a place in the table. Error: ENOSPC.
func (q *quota) addDMB(uid uint32) error {
	u := q.of(uid)
	defer q.settle(uid)
	if q.total.dmbs >= q.limits.MaxDMBs || u.dmbs >= q.limits.MaxDMBsPerUID {
		return unix.ENOSPC
	}
	q.total.dmbs++
	u.dmbs++
	return nil
}

func (q *quota) removeDMB(uid uint32) {
	q.total.dmbs--
	q.of(uid).dmbs--
	q.settle(uid)
}

// addLook takes one of the looks. Error: ENFILE.
func (q *quota) addLook(uid uint32) error {
	u := q.of(uid)
	defer q.settle(uid)
	if q.total.looks >= maxLooks || u.looks >= maxLooksPerUID {
		return unix.ENFILE
	}
	q.total.looks++
	u.looks++
	return nil
}

func (q *quota) removeLook(uid uint32) {
	q.total.looks--
	q.of(uid).looks--
	q.settle(uid)
}

// addBytes takes exactly n bytes. Error: ENOMEM.
func (q *quota) addBytes(uid uint32, n int64) error {
	if n > q.headroom(uid) {
		return unix.ENOMEM
	}
	q.total.bytes += n
	q.of(uid).bytes += n
	return nil
}

func (q *quota) removeBytes(uid uint32, n int64) {
	q.total.bytes -= n
	q.of(uid).bytes -= n
	q.settle(uid)
}

func (q *quota) headroom(uid uint32) int64 {
	var mine int64
	if u := q.perUID[uid]; u != nil {
		mine = u.bytes
	}
	return min(q.limits.MaxBytes-q.total.bytes, q.limits.MaxBytesPerUID-mine)
}

// reserve takes bytes for a memory whose size is not known yet, at most want, in whole pages. While others are in the same
// state it takes only half of what is left, so that two who register at once near the limit can both succeed. Error: ENOMEM
// when not even a page is left.
func (q *quota) reserve(uid uint32, want int64) (int64, error) {
	room := q.headroom(uid)
	if q.total.unsealed > 0 && room < 2*want {
		room /= 2
	}
	n := min(want, room) &^ (PageSize - 1)
	if n <= 0 {
		return 0, unix.ENOMEM
	}
	q.total.bytes += n
	q.total.unsealed++
	u := q.of(uid)
	u.bytes += n
	u.unsealed++
	return n, nil
}

// keep turns a reservation of had bytes into a use of n of them.
func (q *quota) keep(uid uint32, had, n int64) {
	u := q.of(uid)
	q.total.unsealed--
	u.unsealed--
	q.total.bytes -= had - n
	u.bytes -= had - n
	q.settle(uid)
}
