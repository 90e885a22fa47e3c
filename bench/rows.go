// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"slices"
	"time"
)

// quotaPeriods is how much longer a measurement under a quota takes than others.
const quotaPeriods = 5

// thinking is how long a program takes between two messages in the rows where both sides have gone to sleep.
const thinking = time.Millisecond

// rowsOf returns the rows of a command, or of all.
func (s *settings) rowsOf(command string) []row {
	all := slices.Concat(s.latencyRows(), s.streamRows(), s.bandwidthRows(), s.requestRows(), s.httpRows(), s.connectRows(), s.idleRows(), s.sweepRows())
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
	busy := func(r *row) {
		r.kind = busyKind
		r.transports = s.choose("smc", "tcp", "unix")
	}
	otherWaits := func(r *row) { r.transports = s.choose("smc", "smc@busy", "smc@blocking", "smc-copy", "tcp", "unix") }
	for _, size := range s.sizesOr(14) {
		add("hot", "both hot", size, 0, otherWaits)
		add("thinking", "1 ms thinking between", size, thinking, otherWaits)
		add("hot-busy", "both hot, CPUs busy with other work", size, 0, busy)
		add("thinking-busy", "1 ms thinking between, CPUs busy with other work", size, thinking, busy)
		add("hot-quota", "both under a cgroup quota of half a CPU", size, 0, func(r *row) {
			r.kind = quotaKind
			r.transports = s.choose("smc", "tcp", "unix")
			r.task.Duration *= quotaPeriods // a quota is of a tenth of a second
		})
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
			transports: s.choose("smc", "smc-copy", "smc-zerocopy", "tcp", "unix", "c-ring", "c-ring-copy"),
			columns:    columns,
		}, row{
			command: "bandwidth", name: fmt.Sprintf("bandwidth-touched-%d", size),
			title:      sizeText(size) + " messages one way, each one made by the sender and looked at by the receiver",
			task:       task{Activity: "flow", Size: size, Duration: s.Duration, Touch: true},
			transports: s.choose("smc", "smc-zerocopy", "tcp", "unix"),
			columns:    columns,
		})
		if len(s.transports) == 0 {
			rows = append(rows, row{
				command: "bandwidth", name: fmt.Sprintf("bandwidth-pages-%d", size), kind: pagesKind,
				title:      sizeText(size) + " messages one way, buffers of huge pages (dmb_type 0) and of base pages (1)",
				task:       task{Activity: "flow", Size: size, Duration: s.Duration},
				transports: s.choose("smc@1m+huge", "smc@1m+base", "tcp"),
				columns:    columns,
			})
		}
	}
	return rows
}

// connsOr returns the numbers of connections asked for, or a row's own.
func (s *settings) connsOr(own ...int) []int {
	if len(s.Conns) > 0 {
		return s.Conns
	}
	return own
}

func (s *settings) requestRows() []row {
	var rows []row
	for _, n := range s.connsOr(50, 200) {
		for _, size := range s.sizesOr(1024) {
			rows = append(rows, row{
				command: "requests", name: fmt.Sprintf("requests-%d-%d", n, size),
				title:      fmt.Sprintf("%d connections between two processes, %s request and reply, one outstanding on each", n, sizeText(size)),
				task:       task{Activity: "requests", Conns: n, Size: size, Duration: s.Duration},
				transports: s.choose("smc", "tcp", "unix"),
				columns:    slices.Concat([]column{{head: "requests/s", figure: "per_s", spread: true}}, costsPerMessage),
			})
		}
	}
	return rows
}

func (s *settings) httpRows() []row {
	var rows []row
	perSecond := column{head: "requests/s", figure: "per_s", spread: true}
	cost := column{head: "server CPU µs/request", figure: "server_cpu_us_per_op", digits: 2, spread: true}
	for _, n := range s.connsOr(1000) {
		rows = append(rows, row{
			command: "http", name: fmt.Sprintf("http-%d", n),
			title:      fmt.Sprintf("net/http at both ends, keep-alive, %d connections, a page of %d bytes", n, len(page)),
			task:       task{Activity: "http", Conns: n, Duration: s.Duration},
			transports: s.choose("smc", "tcp", "unix"),
			columns:    slices.Concat([]column{perSecond}, costsPerMessage),
		}, row{
			command: "http", name: fmt.Sprintf("http-lean-%d", n),
			title:      fmt.Sprintf("the same server under a lean client, %d connections: its CPU for a request", n),
			task:       task{Activity: "http-lean", Conns: n, Duration: s.Duration},
			transports: s.choose("smc", "tcp", "unix"),
			columns:    []column{cost, perSecond},
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
	rows := []row{{
		command: "connect", name: "connect", title: "connect, 100 B request and reply, close; in an existing link group",
		task:       task{Activity: "connect", Size: 100, Duration: s.Duration},
		transports: s.choose("smc", "smc-copy", "tcp", "tcp-clc", "unix"),
		columns:    append(columns, column{head: "CPU µs", figure: "client_cpu_us_per_op", second: "server_cpu_us_per_op", digits: 1}),
	}}
	for _, n := range s.connsOr(1000) {
		rows = append(rows, row{
			command: "connect", name: fmt.Sprintf("burst-%d", n),
			title:      fmt.Sprintf("%d simultaneous first connects, each with a 100 B request and reply", n),
			task:       task{Activity: "burst", Conns: n, Size: 100, Duration: s.Duration},
			transports: s.choose("smc", "tcp", "unix"),
			columns: []column{
				{head: "ms for all", figure: "all_ms", digits: 1, spread: true},
				{head: "lost", figure: "lost", spread: true},
				{head: "p50 µs", figure: "p50_us"}, {head: "p99", figure: "p99_us"},
			},
		})
	}
	if len(s.transports) > 0 && !slices.ContainsFunc(s.transports, func(t transport) bool { return t.SMC }) {
		return rows // who measures without SMC wants no mount
	}
	return append(rows, row{
		command: "connect", name: "ismfs-mounted", kind: socketsKind,
		title:      "connect + accept + close of a program that does not use ismfs, without a device and beside one; CPU time",
		task:       task{Activity: "sockets", Duration: 4 * s.Duration},
		transports: []transport{{Name: noDevice}, {Name: unusedDevice}, {Name: usedDevice}},
		columns: []column{
			{head: "µs", figure: "connect_us", digits: 2, spread: true},
			{head: "setsockopt µs", figure: "setsockopt_us", digits: 3, spread: true},
			{head: "getsockopt µs", figure: "getsockopt_us", digits: 3, spread: true},
		},
	})
}

func (s *settings) idleRows() []row {
	var rows []row
	for _, n := range s.connsOr(10000) {
		rows = append(rows, row{
			command: "idle", name: fmt.Sprintf("idle-%d", n), kind: idleKind,
			title:      fmt.Sprintf("%d idle connections, and 14 B ping-pong on one more, compared with alone; memory for each connection, client|server", n),
			task:       task{Activity: "idle", Conns: n, Size: 14, Duration: s.Duration, Rest: idleRest * s.Duration},
			transports: s.choose("smc", "tcp", "unix"),
			columns: []column{
				{head: "p50 µs", figure: "beside_p50_us", digits: 2, spread: true},
				{head: "to alone", figure: "beside_to_alone", digits: 2, spread: true},
				{head: "conns", figure: "conns"},
				{head: "pairs", figure: "pairs"},
				{head: "idle CPU %", figure: "client_cpu_percent", second: "server_cpu_percent", digits: 2},
				{head: "own B", figure: "client_anon_bytes_per_conn", second: "server_anon_bytes_per_conn"},
				{head: "mapped B", figure: "client_shared_bytes_per_conn", second: "server_shared_bytes_per_conn"},
				{head: "DMBs B", figure: "dmb_bytes_per_conn"},
			},
		})
	}
	return rows
}

// idleRest is how much longer the idle rest than a measurement lasts.
const idleRest = 10
