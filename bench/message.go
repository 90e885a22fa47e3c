// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"time"
)

// A task is what one process of a pair is to do: the first line that it reads.
type task struct {
	Activity  string        `json:"activity"` // by its name among activities
	Server    bool          `json:"server"`
	Transport transport     `json:"transport"`
	Address   string        `json:"address"` // of the server, for the client
	Size      int           `json:"size"`    // of a message
	Conns     int           `json:"conns"`
	Duration  time.Duration `json:"duration_ns"`
	Think     time.Duration `json:"think_ns"` // between two messages
	Rest      time.Duration `json:"rest_ns"`  // how long it rests when told; reports tell its memory, too
	Touch     bool          `json:"touch"`    // the sender makes each message, the receiver looks at it
}

// Words of the parent, each a line, after the task.
const (
	wordStart  = "start"  // client: measure
	wordRest   = "rest"   // client: do nothing for a while, and tell what you have used
	wordMark   = "mark"   // server: what you use from now on counts
	wordReport = "report" // server: tell what you have used
)

// An event is a line of a worker.
type event struct {
	Event   string  `json:"event"`
	Address string  `json:"address,omitempty"` // listening
	Report  *report `json:"report,omitempty"`
	Error   string  `json:"error,omitempty"` // failed
}

const (
	eventListening = "listening" // server
	eventReady     = "ready"     // client: connected, warm
	eventMarked    = "marked"    // server
	eventReport    = "report"
	eventFailed    = "failed"
)

// A report is what one process has seen in the time that counts.
type report struct {
	Operations float64 `json:"operations"` // messages, requests, connections; of a server, if they are not as many: see flow
	Bytes      float64 `json:"bytes"`
	Usage      usage   `json:"usage"`
	Figures    figures `json:"figures,omitempty"`
	WakeUps    uint64  `json:"wake_ups"` // sent by SMC connections
	Buffer     int     `json:"buffer"`   // ring of an SMC connection, 0 without any
	PageSize   int64   `json:"page"`     // of that ring's memory, if the transport wants certain pages
	Waiting    string  `json:"waiting"`  // how an SMC connection waits, empty without any
	SMC        int     `json:"smc"`      // connections that were SMC-D
	TCP        int     `json:"tcp"`      // and those that were not, of all transports
}
