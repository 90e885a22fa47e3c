// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf"
	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// socketMode says whether a device is for sockets, too.
type socketMode string

const (
	socketsAuto    socketMode = "auto"    // if that can be done
	socketsRequire socketMode = "require" // else nothing is mounted
	socketsOff     socketMode = "off"
)

func (m *socketMode) Type() string   { return "mode" }
func (m *socketMode) String() string { return string(*m) }

func (m *socketMode) Set(v string) error {
	switch s := socketMode(v); s {
	case socketsAuto, socketsRequire, socketsOff:
		*m = s
		return nil
	}
	return fmt.Errorf("%q is not auto, require or off", v)
}

// sockets are a device's part in the SMC option: its place in the set of eBPF programs, or why it has none.
type sockets struct {
	registration *bpf.Registration // nil: none
	why          error
	log          *slog.Logger

	rest *time.Timer  // runs takeRest
	wait atomic.Int64 // nanoseconds from a takeRest that was in vain to the next
}

// restAfter is how long the programs stay attached for nobody, so that programs that come one after another find them. Sockets
// that need them without a process to wait for are counted ever less often, up to mostRest.
const (
	restAfter = 5 * time.Second
	mostRest  = 5 * time.Minute
)

func newSockets(log *slog.Logger) *sockets {
	s := &sockets{log: log}
	s.wait.Store(int64(restAfter))
	s.rest = time.AfterFunc(mostRest, s.takeRest)
	s.rest.Stop()
	return s
}

// attach has the programs know the device. Nobody else may know of it before.
func (s *sockets) attach(mode socketMode, gid smc.GID) error {
	if mode == socketsOff {
		return nil
	}
	s.registration, s.why = bpf.Attach(smcopt.TagOf(gid))
	switch {
	case s.why == nil:
		s.rest.Reset(restAfter)
	case mode == socketsRequire:
		return socketsError(s.why)
	}
	return nil
}

// Enter has the programs attached for a process that begins to use the device.
func (s *sockets) Enter() {
	if s.registration == nil {
		return
	}
	if err := s.registration.Use(); err != nil {
		s.log.Error("sockets stay TCP: the SMC option cannot be attached again (ismfs doctor tells more)", "err", err)
	}
}

// Leave has them detached, in a while, when nobody uses it any more.
func (s *sockets) Leave() {
	if s.registration != nil && s.registration.Done() {
		s.rest.Reset(restAfter)
	}
}

// takeRest detaches the programs if nobody uses them.
func (s *sockets) takeRest() {
	wait := time.Duration(s.wait.Load())
	done, err := s.registration.Rest()
	if err != nil && wait == restAfter { // once, not each time
		s.log.Warn("the SMC option stays attached, though no process uses the device", "err", err)
	}
	if done {
		s.wait.Store(int64(restAfter))
		return
	}
	s.rest.Reset(wait)
	s.wait.Store(int64(min(2*wait, mostRest)))
}

// tell says who is covered. Where sockets stay TCP it also does so on warnings, unless that is nil.
func (s *sockets) tell(warnings io.Writer) {
	switch {
	case s.why != nil:
		s.log.Warn("sockets stay TCP: the SMC option cannot be attached (ismfs doctor tells more, --sockets=off does without)", "err", s.why)
		if warnings != nil {
			fmt.Fprintf(warnings, "ismfs: warning: sockets stay TCP, programs can only share DMBs: %s (ismfs doctor tells more, --sockets=off does without)\n", firstLine(s.why))
		}
	case s.registration == nil:
		s.log.Info("sockets stay TCP: --sockets=off")
	case s.registration.WholeHost():
		s.log.Info("sockets of all processes can use the device")
	default:
		s.log.Warn("only sockets of this container's own processes can use the device; all others stay TCP")
		if warnings != nil {
			fmt.Fprintln(warnings, "ismfs: warning: only sockets of this container's own processes can use the device; all others stay TCP (ismfs doctor tells more)")
		}
	}
}

// withdraw ends the answering of SYNs. Connections that are being made end as they began.
func (s *sockets) withdraw() {
	if s.registration == nil {
		return
	}
	if err := s.registration.Withdraw(); err != nil {
		s.log.Error("SYNs with the device's tag are still answered; connections will be declined", "err", err)
	}
}

func (s *sockets) close() {
	if s.registration == nil {
		return
	}
	s.rest.Stop()
	if err := s.registration.Close(); err != nil {
		s.log.Error("leaving the eBPF programs; the next daemon that ends cleans up", "err", err)
	}
}

// socketsError gives an error of bpf.Attach its exit code.
func socketsError(err error) error {
	err = fmt.Errorf("--sockets=require: %w", err)
	switch {
	case errors.Is(err, bpf.ErrNotPermitted):
		return withCode(exitNotPermitted, err)
	case errors.Is(err, bpf.ErrNotSupported), errors.Is(err, bpf.ErrNoCgroup2):
		return withCode(exitUnsupported, err)
	}
	return err
}

// firstLine leaves the verifier's log out.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// removeIdlePrograms takes the eBPF programs away that a daemon has left, unless somebody needs them.
func removeIdlePrograms() {
	if _, err := bpf.RemoveIdle(); err != nil {
		fmt.Fprintf(os.Stderr, "ismfs: warning: the eBPF programs that a daemon has left stay: %v\n", err)
	}
}

// socketsCovered asks as any client does whether a socket of this process can use the device.
func socketsCovered(d *tree.Device, gid string) (bool, error) {
	g, err := smc.ParseGID(gid)
	if err != nil {
		return false, err
	}
	block, err := dmb.OpenBlock(d, os.Getpagesize())
	if err != nil {
		return false, nil // nor could a client
	}
	defer block.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	err = smcopt.Mark(fd, smcopt.TagOf(g))
	if errors.Is(err, smcopt.ErrNoPrograms) || errors.Is(err, smcopt.ErrNoDevice) {
		return false, nil
	}
	return err == nil, err
}
