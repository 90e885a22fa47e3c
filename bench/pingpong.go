// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net"
	"time"
)

// echo answers each message of the task's size with one.
func echo(w *worker, c net.Conn) error {
	e := w.newEnd(c, w.Size)
	for {
		if err := e.receive(w.Size); err != nil {
			return err
		}
		if err := e.send(w.Size); err != nil {
			return err
		}
	}
}

// preparePingPong connects; its measure sends a message and waits for the answer, again and again.
func preparePingPong(w *worker) (measure, error) {
	c, err := w.dial()
	if err != nil {
		return nil, err
	}
	p := &pingPong{worker: w, end: w.newEnd(c, w.Size)}
	if err := p.warmUp(); err != nil {
		return nil, err
	}
	return p.measure, nil
}

type pingPong struct {
	*worker
	end     end
	latency histogram
}

func (p *pingPong) exchange() error {
	if err := p.end.send(p.Size); err != nil {
		return err
	}
	return p.end.receive(p.Size)
}

// warmUp lets buffers, caches and whatever learns come to rest.
func (p *pingPong) warmUp() error {
	for until := time.Now().Add(p.Duration / 10); time.Now().Before(until); {
		if err := p.exchange(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pingPong) measure() (report, error) {
	p.latency.reset()
	start := time.Now()
	sent := start
	for {
		if err := p.exchange(); err != nil {
			return report{}, err
		}
		now := time.Now()
		p.latency.add(now.Sub(sent))
		if now.Sub(start) >= p.Duration {
			break
		}
		sent = now
		if p.Think > 0 {
			time.Sleep(p.Think)
			sent = time.Now()
		}
	}
	took := time.Since(start)
	n := float64(p.latency.count)
	f := figures{"per_s": n / took.Seconds()}
	p.latency.percentiles(f)
	f["one_way_us"] = f["p50_us"] / 2
	return report{Operations: n, Bytes: 2 * n * float64(p.Size), Figures: f}, nil
}
