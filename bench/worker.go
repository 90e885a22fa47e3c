// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

// A worker is one process of a pair.
type worker struct {
	task
	out   *json.Encoder
	words chan string

	errors  chan error // of the server's connections; the first one counts
	buffer  atomic.Int64
	page    atomic.Int64 // the size of its pages, once it was looked at
	waiting atomic.Value // how an SMC connection waits
	smc     atomic.Int64
	tcp     atomic.Int64
	reads   atomic.Int64 // of flows that have ended
	wakeUps wakeUps
	mark    mark
}

// An activity is what the two processes of a pair do with each other.
type activity struct {
	// serve serves one accepted connection until it ends; serveAll, where that is not enough, a listener. None: no server.
	serve    func(w *worker, c net.Conn) error
	serveAll func(w *worker, l net.Listener) error
	// prepare connects and warms up, and returns what measures, once for each start.
	prepare func(w *worker) (measure, error)
}

// A measure runs as long as the task says and returns what it has seen, without the usage.
type measure func() (report, error)

var activities = map[string]activity{
	"pingpong":  {serve: echo, prepare: preparePingPong},
	"flow":      {serve: absorb, prepare: prepareFlow},
	"connect":   {serve: echo, prepare: prepareConnect},
	"burst":     {serveAll: serveBurst, prepare: prepareBurst},
	"requests":  {serve: echo, prepare: prepareRequests},
	"http":      {serveAll: serveHTTP, prepare: prepareHTTP},
	"http-lean": {serveAll: serveHTTP, prepare: prepareLeanHTTP},
	"idle":      {serve: echo, prepare: prepareIdle},
	"sockets":   {prepare: prepareSockets},
	"spin":      {prepare: prepareSpin},
}

// RunWorker is a process of a pair: it reads its task and the parent's words from in and writes events to out. When in ends
// it ends the process, whatever goes on; it returns only if there is no task.
func RunWorker(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return errors.New("bench worker: no task; it is started by ismfs bench")
	}
	w := &worker{out: json.NewEncoder(out), words: make(chan string), errors: make(chan error, 1)}
	if err := json.Unmarshal(lines.Bytes(), &w.task); err != nil {
		return fmt.Errorf("bench worker: task: %w", err)
	}
	go func() {
		err := w.work()
		if err != nil {
			w.out.Encode(event{Event: eventFailed, Error: err.Error()})
		}
	}()
	for lines.Scan() {
		w.words <- lines.Text()
	}
	os.Exit(0) // the parent has what it wants, or is gone
	return nil
}

func (w *worker) work() error {
	a, ok := activities[w.Activity]
	switch {
	case !ok:
		return fmt.Errorf("no activity %q", w.Activity)
	case w.Server:
		return w.server(a)
	}
	return w.client(a)
}

// client measures at each start.
func (w *worker) client(a activity) error {
	run, err := a.prepare(w)
	if err != nil {
		return err
	}
	if err := w.out.Encode(event{Event: eventReady}); err != nil {
		return err
	}
	for word := range w.words {
		do := run
		if word == wordRest {
			do = w.rest
		}
		if err := w.measured(do); err != nil {
			return err
		}
	}
	return nil
}

// measured runs a measure and reports, with what it has used.
func (w *worker) measured(do measure) error {
	sent := w.wakeUps.total()
	before, err := usageNow()
	if err != nil {
		return err
	}
	r, err := do()
	if err != nil {
		return err
	}
	after, err := usageNow()
	if err != nil {
		return err
	}
	r.Usage, r.WakeUps = after.since(before), w.wakeUps.total()-sent
	return w.tell(r)
}

// rest does nothing.
func (w *worker) rest() (report, error) {
	time.Sleep(w.Rest)
	return report{}, nil
}

// tell sends a report.
func (w *worker) tell(r report) error {
	r.Buffer, r.SMC, r.TCP = int(w.buffer.Load()), int(w.smc.Load()), int(w.tcp.Load())
	r.Waiting, _ = w.waiting.Load().(string)
	r.PageSize = w.page.Load()
	if w.Rest > 0 {
		memory, err := residentMemory()
		if err != nil {
			return err
		}
		r.Figures = merged(r.Figures, memory)
	}
	return w.out.Encode(event{Event: eventReport, Report: &r})
}

// server serves, and answers marks and reports.
func (w *worker) server(a activity) error {
	l, err := w.Transport.listen()
	if err != nil {
		return err
	}
	if err := w.out.Encode(event{Event: eventListening, Address: l.Addr().String()}); err != nil {
		return err
	}
	serveAll := a.serveAll
	if serveAll == nil {
		serveAll = func(w *worker, l net.Listener) error { return w.acceptAll(l, a.serve) }
	}
	go func() { w.failed(serveAll(w, l)) }()
	for {
		select {
		case err := <-w.errors:
			return err
		case word := <-w.words:
			answer := w.account
			if word == wordMark {
				answer = w.setMark
			}
			if err := answer(); err != nil {
				return err
			}
		}
	}
}

// A mark is what a server had used, sent and read when it was told to begin to count.
type mark struct {
	usage   usage
	wakeUps uint64
	reads   int64
}

func (w *worker) setMark() (err error) {
	w.mark.wakeUps, w.mark.reads = w.wakeUps.total(), w.reads.Load()
	if w.mark.usage, err = usageNow(); err != nil {
		return err
	}
	return w.out.Encode(event{Event: eventMarked})
}

// account tells what has come since the mark.
func (w *worker) account() error {
	now, err := usageNow()
	if err != nil {
		return err
	}
	return w.tell(report{
		Operations: float64(w.reads.Load() - w.mark.reads),
		Usage:      now.since(w.mark.usage),
		WakeUps:    w.wakeUps.total() - w.mark.wakeUps,
	})
}

// failed notes the first error.
func (w *worker) failed(err error) {
	if err == nil || errors.Is(err, io.EOF) {
		return
	}
	select {
	case w.errors <- err:
	default:
	}
}

// acceptAll serves each connection in a goroutine of its own.
func (w *worker) acceptAll(l net.Listener, serve func(*worker, net.Conn) error) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer w.close(c)
			err := w.settle(c)
			if err == nil {
				err = serve(w, c)
			}
			w.failed(err)
		}()
	}
}

// dial connects, and has the handshake behind it.
func (w *worker) dial() (net.Conn, error) {
	c, err := w.Transport.dial(w.Address)
	if err != nil {
		return nil, err
	}
	if err := w.settle(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// dialAll makes the task's connections, several at a time.
func (w *worker) dialAll() ([]net.Conn, error) {
	const atOnce = 32
	conns := make([]net.Conn, w.Conns)
	errs := make(chan error, w.Conns)
	tokens := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range conns {
		tokens <- struct{}{}
		all.Go(func() {
			defer func() { <-tokens }()
			c, err := w.dial()
			if err != nil {
				errs <- err
				return
			}
			conns[i] = c
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return nil, err
	default:
		return conns, nil
	}
}

// settle checks that a connection is what the transport says, and notes what it is.
func (w *worker) settle(c net.Conn) error {
	if err := w.Transport.check(c); err != nil {
		return err
	}
	w.note(c)
	return nil
}

// note counts a settled connection.
func (w *worker) note(c net.Conn) {
	s, ok := c.(*libsmc.Conn)
	if !ok {
		w.tcp.Add(1)
		return
	}
	info := s.Info()
	if info.Mode != libsmc.SMCD {
		w.tcp.Add(1)
		return
	}
	w.smc.Add(1)
	w.buffer.Store(int64(info.ReadBuffer))
	w.waiting.Store(info.Wait.String())
	w.wakeUps.add(s)
	if w.Transport.Pages != "" && w.page.Load() == 0 { // of one connection only: the daemon looks at each page
		w.page.Store(pageSizeOf(info.Token))
	}
}
