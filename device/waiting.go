// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"

	"github.com/ismfs/ismfs/procs"
)

// Waiting is the most that a program's connections may spend on waiting; the mount bounds it for all of them. What they do
// is their own code's: this is a word in their procs blocks, which libsmc heeds.
type Waiting int

// Ways of waiting, the most lavish first.
const (
	WaitBusy     Waiting = iota // a program may ask to look for news without ever sleeping
	WaitAdaptive                // look for news for as long as it pays, then sleep
	WaitBlocking                // sleep at once
)

var waitings = []string{"busy", "adaptive", "blocking"}

func (w Waiting) String() string { return waitings[w] }

// Type and Set make a Waiting a flag.
func (w Waiting) Type() string { return "strategy" }

// Set parses a name.
func (w *Waiting) Set(s string) error {
	for i, name := range waitings {
		if s == name {
			*w = Waiting(i)
			return nil
		}
	}
	return fmt.Errorf("busy, adaptive or blocking, not %q", s)
}

// setting returns the bits in the settings word of the procs blocks.
func (w Waiting) setting() uint32 {
	switch w {
	case WaitAdaptive:
		return procs.SettingNoBusy
	case WaitBlocking:
		return procs.SettingNoBusy | procs.SettingNoSpin
	}
	return 0
}
