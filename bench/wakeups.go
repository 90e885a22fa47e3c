// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"net"
	"sync"

	"github.com/ismfs/ismfs/libsmc"
)

// wakeUps counts the system calls that a process's connections make to wake their peers, also those of connections that have ended.
type wakeUps struct {
	mu    sync.Mutex
	open  map[*libsmc.Conn]struct{}
	ended uint64
}

func (u *wakeUps) add(c *libsmc.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open == nil {
		u.open = make(map[*libsmc.Conn]struct{})
	}
	u.open[c] = struct{}{}
}

// remove forgets a connection, but not what it has counted.
func (u *wakeUps) remove(c *libsmc.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.open[c]; ok {
		delete(u.open, c)
		u.ended += c.Info().WakeUps
	}
}

func (u *wakeUps) total() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.ended
	for c := range u.open {
		n += c.Info().WakeUps
	}
	return n
}

// close closes a connection.
func (w *worker) close(c net.Conn) {
	c.Close()
	if s, ok := c.(*libsmc.Conn); ok {
		w.wakeUps.remove(s)
	}
}

// addWakeUps puts the wake-ups of both sides of an SMC cell into figures, by message and by gigabyte: those sent, and those
// suppressed, which are the messages that woke nobody. For the receiver of a flow, a message is a read, which makes space.
func addWakeUps(client, server report, f figures) {
	if client.SMC == 0 {
		return
	}
	messages := map[string]float64{"client": client.Operations, "server": cmp.Or(server.Operations, client.Operations)}
	for side, sent := range map[string]float64{"client": float64(client.WakeUps), "server": float64(server.WakeUps)} {
		suppressed := max(messages[side]-sent, 0)
		if client.Operations > 0 {
			f[side+"_wakeups_per_op"] = sent / client.Operations
			f[side+"_wakeups_suppressed_per_op"] = suppressed / client.Operations
		}
		if gb := client.Bytes / 1e9; gb > 0 {
			f[side+"_wakeups_per_gb"] = sent / gb
			f[side+"_wakeups_suppressed_per_gb"] = suppressed / gb
		}
	}
}
