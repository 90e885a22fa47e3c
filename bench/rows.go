// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"slices"
	"time"
)

// thinking is how long a program takes between two messages in the rows where both sides have gone to sleep.
const thinking = time.Millisecond

// rowsOf returns the rows of a command, or of all.
func (s *settings) rowsOf(command string) []row {
	all := slices.Concat(s.latencyRows(), s.streamRows(), s.bandwidthRows(), s.connectRows())
	if command == "all" {
		return all
	}
	return slices.DeleteFunc(all, func(r row) bool { return r.command != command })
}

// sizesOr returns the sizes asked for, or a row's own.
func (s *settings) sizesOr(own ...int) []int {
	if len(s.sizes) > 0 {
		return s.sizes
	}
	return own
}

var latencyColumns = slices.Concat([]column{
	{head: "p50 µs", figure: "p50_us", digits: 2, spread: true},
	{head: "p99", figure: "p99_us", digits: 2, spread: true},
	{head: "p99.9", figure: "p999_us", digits: 1},
	{head: "one way", figure: "one_way_us", digits: 2},
}, costsPerMessage)

func (s *settings) latencyRows() []row {
	var rows []row
	add := func(name, title string, size int, think time.Duration, change func(*row)) {
		r := row{
			command: "latency", name: fmt.Sprintf("%s-%d", name, size),
			title:      fmt.Sprintf("%s ping-pong, %s; round trips, one way is half", sizeText(size), title),
			task:       task{Activity: "pingpong", Size: size, Think: think, Duration: s.Duration},
			transports: s.choose("smc", "smc-copy", "tcp", "unix"),
			columns:    latencyColumns,
		}
		if change != nil {
			change(&r)
		}
		rows = append(rows, r)
	}
	busy := func(r *row) { r.busy = true }
	for _, size := range s.sizesOr(14) {
		add("hot", "both hot", size, 0, nil)
		add("thinking", "1 ms thinking between", size, thinking, nil)
		add("hot-busy", "both hot, CPUs busy with other work", size, 0, busy)
		add("thinking-busy", "1 ms thinking between, CPUs busy with other work", size, thinking, busy)
		add("hot-quota", "both under a cgroup quota of half a CPU", size, 0, func(r *row) { r.quota = true })
	}
	if len(s.sizes) == 0 {
		add("rate", "messages/s", 100, 0, func(r *row) {
			r.columns = slices.Concat([]column{{head: "messages/s", figure: "per_s", spread: true}}, costsPerMessage)
		})
	}
	return rows
}

func (s *settings) streamRows() []row {
	var rows []row
	for _, size := range s.sizesOr(100) {
		rows = append(rows, row{
			command: "stream", name: fmt.Sprintf("stream-%d", size), title: sizeText(size) + " one-way stream",
			task:       task{Activity: "flow", Size: size, Duration: s.Duration},
			transports: s.choose("smc", "smc-copy", "tcp", "unix"),
			columns: slices.Concat([]column{
				{head: "messages/s", figure: "per_s", spread: true}, {head: "MB/s", figure: "mb_per_s"},
			}, costsPerMessage),
		})
	}
	return rows
}

func (s *settings) bandwidthRows() []row {
	columns := slices.Concat([]column{{head: "MB/s", figure: "mb_per_s", spread: true}}, costsPerGB, costsPerMessage[:1])
	var rows []row
	for _, size := range s.sizesOr(64000) {
		rows = append(rows, row{
			command: "bandwidth", name: fmt.Sprintf("bandwidth-%d", size), title: sizeText(size) + " messages one way",
			task:       task{Activity: "flow", Size: size, Duration: s.Duration},
			transports: s.choose("smc", "smc-copy", "smc-zerocopy", "tcp", "unix"),
			columns:    columns,
		}, row{
			command: "bandwidth", name: fmt.Sprintf("bandwidth-touched-%d", size),
			title:      sizeText(size) + " messages one way, each one made by the sender and looked at by the receiver",
			task:       task{Activity: "flow", Size: size, Duration: s.Duration, Touch: true},
			transports: s.choose("smc", "smc-zerocopy", "tcp", "unix"),
			columns:    columns,
		})
	}
	return rows
}

func (s *settings) connectRows() []row {
	columns := []column{
		{head: "p50 µs", figure: "p50_us", digits: 1, spread: true},
		{head: "p99", figure: "p99_us", digits: 1},
		{head: "connections/s", figure: "per_s", spread: true},
	}
	for _, name := range stepNames {
		columns = append(columns, column{head: name, figure: name + "_us", digits: 1})
	}
	return []row{{
		command: "connect", name: "connect", title: "connect, 100 B request and reply, close; in an existing link group",
		task:       task{Activity: "connect", Size: 100, Duration: s.Duration},
		transports: s.choose("smc", "smc-copy", "tcp", "unix"),
		columns:    append(columns, column{head: "CPU µs", figure: "client_cpu_us_per_op", second: "server_cpu_us_per_op", digits: 1}),
	}}
}
