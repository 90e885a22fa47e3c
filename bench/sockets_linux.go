// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// What sockets of programs that know nothing of ismfs cost while it is mounted, since its eBPF programs are the whole host's.

// prepareSockets measures in one process, so that no process has to be woken: what is looked for is smaller than that.
func prepareSockets(w *worker) (measure, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	if _, err := l.Accept(); err != nil {
		return nil, err
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	return func() (report, error) {
		f := figures{}
		err := errors.Join(
			w.cost("connect", f, func() error { return connectAcceptClose(l) }),
			w.cost("setsockopt", f, func() error {
				return control(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1) })
			}),
			w.cost("getsockopt", f, func() error {
				return control(raw, func(fd int) error {
					_, err := unix.GetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY)
					return err
				})
			}),
		)
		return report{Figures: f}, err
	}, nil
}

// cost notes the CPU time of one call, in microseconds, measured in a third of the task's time.
func (w *worker) cost(name string, f figures, call func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadTime()
	if err != nil {
		return err
	}
	n := 0
	for start := time.Now(); time.Since(start) < w.Duration/3; n++ {
		if err := call(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	after, err := threadTime()
	f[name+"_us"] = micros(after-before) / float64(n)
	return err
}

// threadTime is the CPU time of this thread, which other work on the machine disturbs less than the time on the wall.
func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}

func connectAcceptClose(l net.Listener) error {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	c.(*net.TCPConn).SetLinger(0) // leaves no TIME_WAIT behind
	s, err := l.Accept()
	if err != nil {
		return err
	}
	c.Close()
	return s.Close()
}

func control(raw syscall.RawConn, do func(fd int) error) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		return e
	}
	return err
}

// programsAttached reports whether the eBPF programs are there, of whichever device.
func programsAttached() (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	err = smcopt.Mark(fd, smcopt.Tag{1})
	switch {
	case errors.Is(err, smcopt.ErrNoPrograms):
		return false, nil
	case err == nil, errors.Is(err, smcopt.ErrNoDevice):
		return true, nil
	}
	return false, err
}

// bareSockets and besideISMFS are the row's two states, in the place of transports.
const (
	bareSockets = "tcp, not mounted"
	besideISMFS = "tcp, ismfs mounted"
)

// socketsRow measures all rounds without a mount, and then all with that of the run: a mount in each round would cost more than
// it shows, and a kernel that forbids iterators keeps the programs after an unmount.
func (r *run) socketsRow(ctx context.Context, row row, where placement) (RowResult, error) {
	result := row.result(where)
	for i := range result.Transports {
		t := &result.Transports[i]
		if t.Name == besideISMFS {
			if err := r.device.mountUnlessFound(); err != nil {
				return result, err
			}
		}
		for round := range r.Rounds {
			r.step(row, where, round, t.Name)
			if err := r.socketsCell(ctx, row, where, t); err != nil {
				t.Error = err.Error()
				break
			}
			if ctx.Err() != nil {
				return result, context.Cause(ctx)
			}
		}
	}
	result.summarize(bareSockets)
	return result, nil
}

// socketsCell measures once, beside the programs or without.
func (r *run) socketsCell(ctx context.Context, row row, where placement, t *TransportResult) error {
	attached, err := programsAttached()
	if err != nil {
		return err
	}
	if beside := t.Name == besideISMFS; attached != beside {
		return fmt.Errorf("eBPF programs attached: %t, expected %t: somebody else mounts or unmounts an ismfs", attached, beside)
	}
	client, err := measureAlone(ctx, r.worker(), row.task, where.Client)
	if err != nil {
		return err
	}
	t.Rounds = append(t.Rounds, client.Figures)
	return nil
}

// measureAlone has a single process measure.
func measureAlone(ctx context.Context, command []string, t task, cpus []int) (report, error) {
	patience := patienceFor(t)
	p, err := start(command, "client", "", cpus)
	if err != nil {
		return report{}, err
	}
	defer p.stop()
	if err := p.do(t); err != nil {
		return report{}, err
	}
	if _, err := p.want(ctx, eventReady, patience, nil); err != nil {
		return report{}, err
	}
	if err := p.tell(wordStart); err != nil {
		return report{}, err
	}
	e, err := p.want(ctx, eventReport, patience, nil)
	if err != nil {
		return report{}, err
	}
	return *e.Report, nil
}
