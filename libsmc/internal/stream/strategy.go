// SPDX-License-Identifier: Apache-2.0

package stream

// A Strategy is how a connection waits for bytes or space.
type Strategy int

const (
	Adaptive Strategy = iota // looks for news for as long as that has paid lately, then sleeps
	Busy                     // never sleeps while the CPU is its own
	Blocking                 // sleeps at once
)

func (s Strategy) String() string {
	switch s {
	case Busy:
		return "busy"
	case Blocking:
		return "blocking"
	}
	return "adaptive"
}

// Strategy is what the program asked for, as far as the mount allows.
func (c *Conn) Strategy() Strategy {
	busy, spin := c.link.Process.Block().Waiting()
	switch {
	case !spin:
		return Blocking
	case !busy && c.link.Wait == Busy:
		return Adaptive
	}
	return c.link.Wait
}
