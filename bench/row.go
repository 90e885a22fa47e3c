// SPDX-License-Identifier: Apache-2.0

package bench

// A row is one thing that is measured, over several transports, in each placement.
type row struct {
	command    string // to which it belongs
	name       string
	title      string
	task       task // but for the transport
	transports []transport
	busy       bool // beside other work on all CPUs
	quota      bool // both processes together under half a CPU
	columns    []column
}

// A column is a figure in the table. The first column of a row is what the row is about, and the one that ratios are of.
type column struct {
	head   string
	figure string
	second string // the same of the other side, shown behind it
	digits int
	spread bool // with min and max
}

func (r row) figure() string { return r.columns[0].figure }

// Columns for the costs of both sides.
var (
	costsPerMessage = []column{
		{head: "CPU µs/msg", figure: "client_cpu_us_per_op", second: "server_cpu_us_per_op", digits: 2},
		{head: "sleeps/msg", figure: "client_voluntary_per_op", second: "server_voluntary_per_op", digits: 3},
		{head: "preempted/msg", figure: "client_involuntary_per_op", second: "server_involuntary_per_op", digits: 3},
	}
	costsPerGB = []column{
		{head: "CPU s/GB", figure: "client_cpu_s_per_gb", second: "server_cpu_s_per_gb", digits: 3},
		{head: "sleeps/GB", figure: "client_voluntary_per_gb", second: "server_voluntary_per_gb"},
		{head: "preempted/GB", figure: "client_involuntary_per_gb", second: "server_involuntary_per_gb"},
	}
)
