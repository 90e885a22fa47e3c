// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"errors"
	"os"
	"slices"
	"sync"
	"time"
)

// mostLate is how many handshakes a process goes on with whose clients have been silent for clcTimeout. Over TCP a server loses
// no client that has connected and then does something else, and a client under smc_run does nothing for a handshake but in its
// program's calls. But each can hold a buffer of the server's, so one more ends the one that has been late for longest.
const mostLate = 256

var late struct {
	mu    sync.Mutex
	conns []*Conn // the latest last
}

func becomeLate(c *Conn) {
	var first *Conn
	late.mu.Lock()
	late.conns = append(late.conns, c)
	if len(late.conns) > mostLate {
		first = late.conns[0]
		late.conns = late.conns[1:]
	}
	late.mu.Unlock()
	if first != nil {
		first.giveUp()
	}
}

func noLongerLate(c *Conn) {
	late.mu.Lock()
	defer late.mu.Unlock()
	late.conns = without(late.conns, c)
}

func without(conns []*Conn, c *Conn) []*Conn {
	if i := slices.Index(conns, c); i >= 0 {
		return slices.Delete(conns, i, i+1)
	}
	return conns
}

// awaitClient gives a client clcTimeout for its next message: from now on, or, if it may be late, from when that begins.
func (c *Conn) awaitClient(mayBeLate bool) error {
	c.await(clcTimeout)
	if !mayBeLate {
		return nil
	}
	err := awaitByte(c.tcp)
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.isGivenUp() {
		becomeLate(c)
		c.await(forever)
		err = awaitByte(c.tcp)
		noLongerLate(c)
	}
	if err == nil {
		c.await(clcTimeout)
	}
	return err
}

// forever is a patience without an end.
const forever = time.Duration(1<<63 - 1)
