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

// strategies are what the ways of waiting are called inside; their words are the same.
var strategies = map[Wait]stream.Strategy{
	WaitAdaptive: stream.Adaptive,
	WaitBusy:     stream.Busy,
	WaitBlocking: stream.Blocking,
}

func (w Wait) String() string {
	if s, ok := strategies[w]; ok {
		return s.String()
	}
	return "default"
}

// waitOf is the other direction of strategies.
func waitOf(s stream.Strategy) Wait {
	w, _ := parseWait(s.String())
	return w
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
	return strategies[w]
}

// parseWait reads what SMC_WAIT says.
func parseWait(text string) (Wait, bool) {
	if text == "" {
		return WaitAdaptive, true
	}
	for w, s := range strategies {
		if s.String() == text {
			return w, true
		}
	}
	return WaitDefault, false
}
