// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/ismfs/ismfs/smc"
)

// environment is what SMC_RCVBUF (0: nothing) and SMC_DEBUG say, as smc_run sets them, and SMC_WAIT.
var environment = sync.OnceValue(func() (e struct {
	buffer int
	wait   Wait
	log    *slog.Logger
}) {
	e.log = slog.New(slog.DiscardHandler)
	if v := os.Getenv("SMC_DEBUG"); v != "" && v != "0" {
		e.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if v := os.Getenv("SMC_RCVBUF"); v != "" {
		if n, ok := parseSize(v); ok {
			e.buffer = n
		} else {
			e.log.Warn("libsmc: SMC_RCVBUF is not a size: want bytes, or a number with k or m", "value", v)
		}
	}
	wait, ok := parseWait(os.Getenv("SMC_WAIT"))
	if !ok {
		e.log.Warn("libsmc: SMC_WAIT is none of adaptive, busy and blocking", "value", os.Getenv("SMC_WAIT"))
	}
	e.wait = wait
	return e
})

// parseSize reads a size as smc_run takes it: a number, with k, K, m or M for its powers of 1024.
func parseSize(s string) (int, bool) {
	digits, shift := s, 0
	switch {
	case strings.HasSuffix(s, "k"), strings.HasSuffix(s, "K"):
		digits, shift = s[:len(s)-1], 10
	case strings.HasSuffix(s, "m"), strings.HasSuffix(s, "M"):
		digits, shift = s[:len(s)-1], 20
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 {
		return 0, false
	}
	return int(min(n<<shift, smc.MaxBufSize)), true
}

// bufferSize returns the size of a DMB for a program that asked for n bytes, 0 if it did not; 0 if nobody says anything.
func bufferSize(n int) int {
	if n <= 0 {
		n = environment().buffer
	}
	if n <= 0 {
		return 0
	}
	return smc.UncompressBufSize(smc.CompressBufSize(n))
}

// debug logs if SMC_DEBUG is set.
func debug(msg string, args ...any) {
	if log := environment().log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("libsmc: "+msg, args...)
	}
}
