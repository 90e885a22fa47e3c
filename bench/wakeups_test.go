// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"maps"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
)

func TestWakeUps(t *testing.T) {
	for _, c := range []struct {
		what           string
		client, server report
		want           figures
	}{
		{
			"ping-pong", report{Operations: 100, Bytes: 1e9, WakeUps: 10, SMC: 1}, report{WakeUps: 100, SMC: 1},
			figures{
				"client_wakeups_per_op": 0.1, "client_wakeups_suppressed_per_op": 0.9,
				"server_wakeups_per_op": 1, "server_wakeups_suppressed_per_op": 0,
				"client_wakeups_per_gb": 10, "client_wakeups_suppressed_per_gb": 90,
				"server_wakeups_per_gb": 100, "server_wakeups_suppressed_per_gb": 0,
			},
		},
		{
			"a flow that the receiver reads in half as many pieces", report{Operations: 100, SMC: 2}, report{Operations: 50, WakeUps: 25, SMC: 2},
			figures{
				"client_wakeups_per_op": 0, "client_wakeups_suppressed_per_op": 1,
				"server_wakeups_per_op": 0.25, "server_wakeups_suppressed_per_op": 0.25,
			},
		},
		{
			"more than one for each message", report{Operations: 2, WakeUps: 5, SMC: 1}, report{SMC: 1},
			figures{
				"client_wakeups_per_op": 2.5, "client_wakeups_suppressed_per_op": 0,
				"server_wakeups_per_op": 0, "server_wakeups_suppressed_per_op": 1,
			},
		},
		{"TCP", report{Operations: 100, Bytes: 1e9, TCP: 1}, report{TCP: 1}, figures{}},
	} {
		f := figures{}
		addWakeUps(c.client, c.server, f)
		if !maps.Equal(f, c.want) {
			t.Errorf("%s: %v, want %v", c.what, f, c.want)
		}
	}
}

// A mount that allows less than a transport's name says is noted.
func TestOtherWait(t *testing.T) {
	for _, c := range []struct {
		result TransportResult
		want   string // part of the note; empty: none
	}{
		{TransportResult{Waiting: "busy", transport: transport{Wait: libsmc.WaitBusy}}, ""},
		{TransportResult{Waiting: "blocking"}, ""},
		{TransportResult{}, ""},
		{TransportResult{Name: "smc@busy", Waiting: "adaptive", transport: transport{Wait: libsmc.WaitBusy}}, "smc@busy waits in the way adaptive"},
	} {
		if got := c.result.otherWait(); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.result, got, c.want)
		}
	}
}
