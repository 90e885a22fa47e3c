// SPDX-License-Identifier: Apache-2.0

// Package report shows what became of an example's connections. A program of one's own needs nothing of it: without a report
// a connection that fell back to TCP works as well.
package report

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

// A Report remembers the connections of one client.
type Report struct {
	require *bool
	hold    *time.Duration

	mu    sync.Mutex
	conns []net.Conn
}

// Flags defines the flags that all clients have. Call it before flag.Parse.
func Flags() *Report {
	return &Report{
		require: flag.Bool("require-smc", false, "fail if a connection is not SMC-D"),
		hold:    flag.Duration("hold", 0, "keep the connections for this `duration` at the end (1m, say), to look at them with smcd-dump sockets"),
	}
}

// A DialFunc is what libsmc.DialContext and net.Dialer.DialContext are.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Watch remembers what dial returns.
func (r *Report) Watch(dial DialFunc) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err == nil {
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
		}
		return c, err
	}
}

// errNotSMC is Finish's error with -require-smc.
var errNotSMC = errors.New("not every connection is SMC-D, as -require-smc wants it: the reason is above, and docs/libsmc.md says what to do")

// Finish prints a line for each connection, and again after -hold. Call it while they are open.
func (r *Report) Finish() error {
	if err := r.print(); err != nil || *r.hold == 0 {
		return err
	}
	fmt.Printf("holding for %v, or until interrupted\n", *r.hold)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	select {
	case <-ctx.Done():
	case <-time.After(*r.hold):
	}
	return r.print()
}

func (r *Report) print() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := len(r.conns) > 0
	for _, c := range r.conns {
		text, smc := describe(c)
		fmt.Printf("%v to %v: %s\n", c.LocalAddr(), c.RemoteAddr(), text)
		all = all && smc
	}
	if *r.require && !all {
		return errNotSMC
	}
	return nil
}

// describe says what carries a connection's bytes.
func describe(c net.Conn) (text string, smc bool) {
	s, ok := c.(*libsmc.Conn)
	if !ok {
		return fmt.Sprintf("%T", c), false
	}
	switch i := s.Info(); {
	case i.Mode == libsmc.SMCD:
		return fmt.Sprintf("SMC-D, %d bytes read, %d written", i.BytesRead, i.BytesWritten), true
	case i.Cause != nil:
		return fmt.Sprintf("%v, since %s (%v)", i.Mode, i.Reason.String(), i.Cause), false
	case i.PeerDiagnosis != 0:
		return fmt.Sprintf("%v, since %s: %s", i.Mode, i.Reason.String(), i.PeerDiagnosis.String()), false
	default:
		return fmt.Sprintf("%v, since %s", i.Mode, i.Reason.String()), false
	}
}
