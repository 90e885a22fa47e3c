// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf"
	"github.com/ismfs/ismfs/bpf/smcopt"
)

// What sockets of programs that know nothing of ismfs cost beside a device, since its eBPF programs are the whole host's.

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

// The row's states, in the place of transports.
const (
	noDevice     = "tcp, no device"
	unusedDevice = "tcp, device unused"
	usedDevice   = "tcp, device in use"
)

// socketsTurns is how many turns each state has in a round, whose median counts: the machine's own pace changes by more from one
// second to the next than what is looked for.
const socketsTurns = 20

// socketsRow measures without the programs, and with them as for a device that nobody uses and for one that somebody does.
func (r *run) socketsRow(ctx context.Context, row row, where placement) (result RowResult, err error) {
	result = row.result(where)
	row.task.Duration /= socketsTurns
	p, err := startAlone(ctx, r.worker(), row.task, where.Client)
	if err != nil {
		return result, err
	}
	defer p.stop()
	device := new(fakeDevice)
	defer func() { err = errors.Join(err, device.set(noDevice)) }()
	for round := range r.Rounds {
		turns := make([][]figures, len(result.Transports))
		for turn := range socketsTurns {
			for i := range turns {
				i = (i + turn) % len(turns)
				t := &result.Transports[i]
				if turn == 0 {
					r.step(row, where, round, t.Name)
				}
				f, err := socketsTurn(ctx, p, row.task, device, t.Name)
				if ctx.Err() != nil {
					return result, context.Cause(ctx)
				}
				if err != nil {
					t.Error = err.Error()
					return result, nil
				}
				turns[i] = append(turns[i], f)
			}
		}
		for i := range turns {
			f := figures{}
			for name, s := range summarizeAll(turns[i]) {
				f[name] = s.Median
			}
			result.Transports[i].Rounds = append(result.Transports[i].Rounds, f)
		}
	}
	result.summarize(noDevice)
	return result, nil
}

// socketsTurn measures once, in one of the states.
func socketsTurn(ctx context.Context, p *process, t task, device *fakeDevice, state string) (figures, error) {
	if err := device.set(state); err != nil {
		return nil, err
	}
	if err := p.tell(wordStart); err != nil {
		return nil, err
	}
	e, err := p.want(ctx, eventReport, patienceFor(t), nil)
	if err != nil {
		return nil, err
	}
	return e.Report.Figures, nil
}

// A fakeDevice is to sockets what a mounted device is: its programs are all that they meet.
type fakeDevice struct {
	programs *bpf.Registration // nil: none
	used     bool
}

// set brings about one of the row's states, and makes sure that it is there.
func (d *fakeDevice) set(state string) error {
	var err error
	switch state {
	case noDevice:
		err = d.remove()
	case unusedDevice:
		err = d.leave()
	case usedDevice:
		err = d.use()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", state, err)
	}
	return wantPrograms(state == usedDevice)
}

func (d *fakeDevice) remove() error {
	if d.programs == nil {
		return nil
	}
	err := d.programs.Close()
	*d = fakeDevice{}
	return err
}

func (d *fakeDevice) add() (err error) {
	if d.programs != nil {
		return nil
	}
	var tag smcopt.Tag
	rand.Read(tag[:])
	d.programs, err = bpf.Attach(tag)
	return err
}

func (d *fakeDevice) leave() error {
	if err := d.add(); err != nil {
		return err
	}
	if d.used {
		d.programs.Done()
		d.used = false
	}
	_, err := d.programs.Rest()
	return err
}

func (d *fakeDevice) use() error {
	if err := d.add(); err != nil || d.used {
		return err
	}
	d.used = true
	return d.programs.Use()
}

// wantPrograms waits until the programs are attached or not: the kernel takes its time to detach those that are removed.
func wantPrograms(want bool) error {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		attached, err := programsAttached()
		if err != nil || attached == want {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("eBPF programs attached: %t, expected %t: somebody else uses, mounts or unmounts an ismfs", attached, want)
		}
	}
}

// startAlone starts a single process that is to measure.
func startAlone(ctx context.Context, command []string, t task, cpus []int) (*process, error) {
	p, err := start(command, "client", "", cpus)
	if err != nil {
		return nil, err
	}
	if err = p.do(t); err == nil {
		_, err = p.want(ctx, eventReady, patienceFor(t), nil)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}
