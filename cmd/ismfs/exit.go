// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
)

// Exit codes. They are a promise: a number keeps its meaning.
const (
	exitOK           = 0
	exitFailure      = 1
	exitUsage        = 2
	exitUnsupported  = 3
	exitNotPermitted = 4
	exitMountPoint   = 5
	exitInUse        = 6
	exitNotMounted   = 7
)

var exitMeanings = []struct {
	code    int
	meaning string
}{
	{exitOK, "done"},
	{exitFailure, "failed for another reason"},
	{exitUsage, "wrong usage: unknown command, option or value"},
	{exitUnsupported, "this machine cannot do it: no /dev/fuse, no FUSE passthrough (see ismfs doctor)"},
	{exitNotPermitted, "a privilege is missing"},
	{exitMountPoint, "the mount point cannot be used: missing, no directory, not empty, a dead mount"},
	{exitInUse, "in use: DMBs or files are open, or a live device is mounted there"},
	{exitNotMounted, "no ismfs is mounted there"},
}

func exitCodeHelp() string {
	var b strings.Builder
	for _, m := range exitMeanings {
		fmt.Fprintf(&b, "  %d  %s\n", m.code, m.meaning)
	}
	return b.String()
}

// codedError is an error that decides the exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func withCode(code int, err error) error { return &codedError{code, err} }

func usageError(err error) error { return withCode(exitUsage, err) }

func exitCode(err error) int {
	var coded *codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	if strings.HasPrefix(err.Error(), "unknown command") { // cobra has no error value for it
		return exitUsage
	}
	return exitFailure
}
