// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dmb

import (
	"errors"
	"sync/atomic"
	"time"
)

// Nothing can be opened here, so only the ways to a first file are ever called.

const (
	readWrite = 0
	writeOnly = 0
)

type status struct {
	size     int64
	links    int
	owner    uint32
	readable bool
}

func openFile(string, int) (int, error)     { return -1, errors.ErrUnsupported }
func createFile(string) (int, error)        { return -1, errors.ErrUnsupported }
func openOrCreateFile(string) (int, error)  { return -1, errors.ErrUnsupported }
func openFIFO(string) (int, error)          { return -1, errors.ErrUnsupported }
func closeFile(int) error                   { return errors.ErrUnsupported }
func truncate(int, int) error               { return errors.ErrUnsupported }
func stat(int) (status, error)              { return status{}, errors.ErrUnsupported }
func mapFile(int, int, int) ([]byte, error) { return nil, errors.ErrUnsupported }
func mapAnonymous(int) ([]byte, error)      { return nil, errors.ErrUnsupported }
func unmap([]byte) error                    { return errors.ErrUnsupported }
func adviseHugePages([]byte, bool)          {}
func collapse([]byte)                       {}
func populate([]byte) error                 { return errors.ErrUnsupported }
func unpopulate([]byte)                     {}
func pwriteAll(int, []byte, int) error      { return errors.ErrUnsupported }
func writeByte(int)                         {}
func readBytes(int) error                   { return errors.ErrUnsupported }
func futexWake(*atomic.Uint32, int)         {}

func futexWait(*atomic.Uint32, uint32, time.Duration) (timedOut bool) { return true }
