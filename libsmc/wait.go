// SPDX-License-Identifier: Apache-2.0

package libsmc

import "github.com/ismfs/ismfs/libsmc/internal/stream"

// A Wait is how connections wait for bytes and for space. The mount may allow less (`ismfs mount --wait`).
type Wait int

const (
	WaitDefault  Wait = iota // what $SMC_WAIT says: adaptive, busy or blocking; adaptive if it says nothing
	WaitAdaptive             // look for news for as long as that has paid lately, then sleep
	WaitBusy                 // never sleep: the lowest latency, for a CPU that nobody else needs
	WaitBlocking             // sleep at once: the least CPU time
)

func (w Wait) String() string {
	switch w {
	case WaitAdaptive:
		return "adaptive"
	case WaitBusy:
		return "busy"
	case WaitBlocking:
		return "blocking"
	}
	return "default"
}

// waitOf is the other direction of options.strategy.
func waitOf(s stream.Strategy) Wait {
	switch s {
	case stream.Busy:
		return WaitBusy
	case stream.Blocking:
		return WaitBlocking
	}
	return WaitAdaptive
}

// options are what Dialer and ListenConfig set of a connection.
type options struct {
	buffer int // 0: nothing was said
	wait   Wait
}

// strategy returns the strategy to be used.
func (o *options) strategy() stream.Strategy {
	w := o.wait
	if w == WaitDefault {
		w = environment().wait
	}
	switch w {
	case WaitBusy:
		return stream.Busy
	case WaitBlocking:
		return stream.Blocking
	}
	return stream.Adaptive
}

// parseWait reads what SMC_WAIT says.
func parseWait(s string) (Wait, bool) {
	switch s {
	case "", "adaptive":
		return WaitAdaptive, true
	case "busy":
		return WaitBusy, true
	case "blocking":
		return WaitBlocking, true
	}
	return WaitDefault, false
}
