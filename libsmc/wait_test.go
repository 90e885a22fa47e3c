// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"testing"

	"github.com/ismfs/ismfs/libsmc/internal/stream"
)

func TestParseWait(t *testing.T) {
	for text, want := range map[string]Wait{
		"": WaitAdaptive, "adaptive": WaitAdaptive, "busy": WaitBusy, "blocking": WaitBlocking,
		"Busy": WaitDefault, "busy ": WaitDefault, "1": WaitDefault,
	} {
		if got, ok := parseWait(text); got != want || ok != (want != WaitDefault) {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
}

func TestStrategyOfOptions(t *testing.T) {
	for wait, want := range map[Wait]stream.Strategy{
		WaitAdaptive: stream.Adaptive, WaitBusy: stream.Busy, WaitBlocking: stream.Blocking,
	} {
		if got := (&options{wait: wait}).strategy(); got != want {
			t.Errorf("%v: %v, want %v", wait, got, want)
		}
	}
}
