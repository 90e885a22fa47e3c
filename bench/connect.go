// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net"
	"time"
)

// prepareConnect makes a connection that stays, and with it the link group; its measure makes one after the other, each for one
// request.
func prepareConnect(w *worker) (measure, error) {
	c, err := w.dial()
	if err != nil {
		return nil, err
	}
	m := &connector{worker: w, stays: c, end: w.newEnd(c, w.Size)}
	if err := m.end.send(w.Size); err != nil {
		return nil, err
	}
	if err := m.end.receive(w.Size); err != nil {
		return nil, err
	}
	for until := time.Now().Add(w.Duration / 10); time.Now().Before(until); {
		if err := m.once(); err != nil {
			return nil, err
		}
	}
	return m.measure, nil
}

type connector struct {
	*worker
	stays net.Conn
	end   end
	whole histogram
	steps [connectSteps]histogram
}

// The steps of a connection, as the client sees them.
const (
	stepDial = iota
	stepHandshake
	stepRequest
	stepClose
	connectSteps
)

var stepNames = [connectSteps]string{"dial", "handshake", "request", "close"}

func (m *connector) once() error {
	var at [connectSteps + 1]time.Time
	at[0] = time.Now()
	c, err := m.Transport.dial(m.Address)
	if err != nil {
		return err
	}
	at[1] = time.Now()
	if err := m.settle(c); err != nil {
		c.Close()
		return err
	}
	at[2] = time.Now()
	err = m.request(c)
	at[3] = time.Now()
	m.close(c)
	at[4] = time.Now()
	if err != nil {
		return err
	}
	for i := range m.steps {
		m.steps[i].add(at[i+1].Sub(at[i]))
	}
	m.whole.add(at[connectSteps].Sub(at[0]))
	return nil
}

// request sends one message and waits for the answer.
func (m *connector) request(c net.Conn) error {
	e := m.newEnd(c, m.Size)
	if err := e.send(m.Size); err != nil {
		return err
	}
	return e.receive(m.Size)
}

func (m *connector) measure() (report, error) {
	m.whole.reset()
	for i := range m.steps {
		m.steps[i].reset()
	}
	start := time.Now()
	for time.Since(start) < m.Duration {
		if err := m.once(); err != nil {
			return report{}, err
		}
	}
	took := time.Since(start)
	n := float64(m.whole.count)
	f := figures{"per_s": n / took.Seconds()}
	m.whole.percentiles(f)
	for i, name := range stepNames {
		f[name+"_us"] = micros(m.steps[i].percentile(50))
	}
	return report{Operations: n, Figures: f}, nil
}
