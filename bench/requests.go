// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A crowd is many connections, each with a goroutine that does the same thing over and over.
type crowd struct {
	duration time.Duration
	once     []func() error // a request and its reply, for each connection
}

// prepareRequests connects; its measure has one message outstanding on each connection.
func prepareRequests(w *worker) (measure, error) {
	conns, err := w.dialAll()
	if err != nil {
		return nil, err
	}
	m := &crowd{duration: w.Duration}
	for _, c := range conns {
		m.once = append(m.once, w.exchangeOn(c))
	}
	return m.warmedUp()
}

// exchangeOn returns what sends a message and receives one.
func (w *worker) exchangeOn(c net.Conn) func() error {
	e := w.newEnd(c, w.Size)
	return func() error {
		if err := e.send(w.Size); err != nil {
			return err
		}
		return e.receive(w.Size)
	}
}

// warmedUp returns the crowd's measure after it has run for a tenth of its time.
func (m *crowd) warmedUp() (measure, error) {
	if _, err := m.run(m.duration / 10); err != nil {
		return nil, err
	}
	return func() (report, error) { return m.run(m.duration) }, nil
}

// run has all of them work for some time, and counts.
func (m *crowd) run(d time.Duration) (report, error) {
	var stop atomic.Bool
	var total atomic.Int64
	errs := make([]error, len(m.once))
	start := time.Now()
	var all sync.WaitGroup
	for i, once := range m.once {
		all.Go(func() {
			n := int64(0)
			for !stop.Load() && errs[i] == nil {
				errs[i] = once()
				n++
			}
			total.Add(n)
		})
	}
	time.Sleep(d)
	stop.Store(true)
	all.Wait()
	took := time.Since(start).Seconds()
	n := float64(total.Load())
	return report{Operations: n, Figures: figures{"per_s": n / took}}, errors.Join(errs...)
}
