// SPDX-License-Identifier: Apache-2.0

package device

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// ConnInfo describes a connection or listener. What its process says of it stands in Conn, but for tokens: those are zero
// unless the device knows that the DMB is this process's own, or that it is attached to it. The rest is the device's.
type ConnInfo struct {
	procs.Conn
	ProcessID uint32
	PID       int
	UID       uint32
	NetNS     uint64 // inode number of the network namespace, 0 if unknown
	Own       *Ring  // the own DMB; nil: none that the device knows
	Other     *Ring  // the peer's
}

// A Ring is a connection's DMB.
type Ring struct {
	Number uint32 // its number among the DMBs of the device
	Size   int64  // of the DMB
	Copy   bool   // the peer writes it instead of mapping it

	// What its peer wrote into its header.
	Producer, Consumer smc.Cursor
	ProducerFlags      smc.ProducerFlags
	StateFlags         smc.StateFlags
}

// mostConns bounds what one who is not privileged can have listed: eight times the slots of a block of 1 MiB. So
// nobody's list of invented connections takes all memory.
const mostConns = 1 << 16

// Conns describes the connections and listeners of the processes that are the caller's to see, in no more order than that
// those of one process stand together. Each is true of some moment; together they are of none.
func (d *Device) Conns(c Caller) ([]ConnInfo, error) {
	pid, who, err := c.identify()
	if err != nil {
		return nil, nil // whom the daemon cannot see has nothing to see here
	}
	most := mostConns
	if d.privileged(who) {
		most = int(^uint(0) >> 1)
	}
	var seen []*described
	err = d.describe(pid, who, func(p *described) {
		if most == 0 {
			return
		}
		if p.findInodes() {
			d.stopFinding(p.process)
		}
		p.conns = p.conns[:min(len(p.conns), most)]
		most -= len(p.conns)
		seen = append(seen, p)
	})
	findAddresses(seen)
	var list []ConnInfo
	for _, p := range seen {
		list = append(list, d.inspectConns(p, pid, who)...)
	}
	return list, err
}

// connsAtOnce is how many connections are looked up, and their headers read, without letting go of the lock: some 50 µs.
const connsAtOnce = 64

// inspectConns adds what the device knows to what a process says; nothing if the process has exited, or is not any more to be seen by
// who is in the process pid. It can have executed a setuid program since it was, so what was found by its descriptors counts only if it
// has that before and after this has been asked: then it had it when that was so.
func (d *Device) inspectConns(p *described, pid int, who Principal) []ConnInfo {
	list := make([]ConnInfo, len(p.conns))
	for i, c := range p.conns {
		list[i] = ConnInfo{Conn: *c, ProcessID: p.process.ID, PID: p.process.PID, UID: p.uid, NetNS: p.netNS}
	}
	for rest := list; len(rest) > 0; {
		n := min(connsAtOnce, len(rest))
		if !d.inspectSome(p.process, pid, who, rest[:n]) {
			return nil
		}
		rest = rest[n:]
	}
	return slices.DeleteFunc(list, func(c ConnInfo) bool { return c.Descriptor != 0 && !p.has(&c.Conn) })
}

func (d *Device) inspectSome(p *Process, pid int, who Principal, list []ConnInfo) (visible bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.exited() || !d.maySee(p, pid, who) {
		return false
	}
	for i := range list {
		c := &list[i]
		if m := d.dmbs[Token(c.Token)]; m != nil && m.process == p {
			c.Own = m.ring()
		} else {
			c.Token = 0
		}
		if m := d.dmbs[Token(c.PeerToken)]; m != nil && m.peer == p && m.attached > 0 {
			c.Other = m.ring()
		} else {
			c.PeerToken = 0
		}
	}
	return true
}

// ring describes the DMB with its header as it is now, read as its owner reads it: a word at a time. The lock is held.
func (m *DMB) ring() *Ring {
	if m.mem == nil || m.size == 0 {
		return nil
	}
	r := &Ring{Number: m.Sequence, Size: m.size, Copy: !m.merged()}
	var words [smc.OffConsumer + 8 - smc.OffProducer]byte
	if n, err := unix.Pread(m.mem.fd, words[:], smc.OffProducer); err != nil || n != len(words) {
		return r
	}
	r.Producer = smc.ParseProducerWord(binary.NativeEndian.Uint64(words[:]))
	r.Consumer, r.ProducerFlags, r.StateFlags = smc.ParseConsumerWord(binary.NativeEndian.Uint64(words[8:]))
	return r
}
