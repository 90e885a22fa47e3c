// SPDX-License-Identifier: Apache-2.0

package bench

// A row is one thing that is measured, over several transports, in each placement.
type row struct {
	command    string // to which it belongs
	name       string
	title      string
	task       task // but for the transport
	transports []transport
	kind       kind
	columns    []column
	sweep      bool // for the plot, not for the table
}

// A kind is how a row is measured.
type kind int

const (
	plainKind   kind = iota
	busyKind         // beside other work on all CPUs
	quotaKind        // both processes together under half a CPU
	idleKind         // beside idle connections
	socketsKind      // without and with the programs of a device
	pagesKind        // with huge pages
)

// A column is a figure in the table. The first column of a row is what the row is about, and the one that ratios are of.
type column struct {
	head   string
	figure string
	second string // the same of the other side, shown behind it
	digits int
	spread bool // with min and max
}

// result returns the row's result without any rounds.
func (r row) result(where placement) RowResult {
	result := RowResult{
		Command: r.command, Name: r.name, Title: r.title, Placement: where.Name,
		Size: r.task.Size, Conns: r.task.Conns, Figure: r.figure(), columns: r.columns, sweep: r.sweep,
	}
	for _, t := range r.transports {
		if t.Ring && where.Name != twoCPUs {
			continue // it never sleeps
		}
		result.Transports = append(result.Transports, TransportResult{Name: t.Name, Rounds: []figures{}, transport: t})
	}
	return result
}

func (r row) figure() string { return r.columns[0].figure }

// Columns for the costs of both sides.
var (
	costsPerMessage = []column{
		{head: "CPU µs/msg", figure: "client_cpu_us_per_op", second: "server_cpu_us_per_op", digits: 2},
		{head: "sleeps/msg", figure: "client_voluntary_per_op", second: "server_voluntary_per_op", digits: 3},
		{head: "preempted/msg", figure: "client_involuntary_per_op", second: "server_involuntary_per_op", digits: 3},
		{head: "wake-ups/msg", figure: "client_wakeups_per_op", second: "server_wakeups_per_op", digits: 3},
	}
	costsPerGB = []column{
		{head: "CPU s/GB", figure: "client_cpu_s_per_gb", second: "server_cpu_s_per_gb", digits: 3},
		{head: "sleeps/GB", figure: "client_voluntary_per_gb", second: "server_voluntary_per_gb"},
		{head: "preempted/GB", figure: "client_involuntary_per_gb", second: "server_involuntary_per_gb"},
		{head: "wake-ups/GB", figure: "client_wakeups_per_gb", second: "server_wakeups_per_gb"},
	}
)
