// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net"
	"sync"
	"time"
)

// serveBurst serves whatever comes, and lets the client count what does not.
func serveBurst(w *worker, l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		w.note(c)
		go func() {
			defer w.close(c)
			echo(w, c)
		}()
	}
}

// prepareBurst prepares nothing: the connections that it measures are the first between the two processes.
func prepareBurst(w *worker) (measure, error) {
	return func() (report, error) { return w.burst(), nil }, nil
}

// burst makes all connections at once, has a reply on each, and then closes them.
func (w *worker) burst() report {
	took := make([]time.Duration, w.Conns) // 0: lost
	conns := make([]net.Conn, w.Conns)
	start := time.Now()
	var all sync.WaitGroup
	for i := range took {
		all.Go(func() {
			c, err := w.Transport.dial(w.Address)
			if err != nil {
				return
			}
			conns[i] = c
			if w.exchangeOn(c)() != nil {
				return
			}
			took[i] = time.Since(start)
			w.note(c)
		})
	}
	all.Wait()
	f := figures{"lost": 0, "all_ms": float64(time.Since(start)) / float64(time.Millisecond)}
	var h histogram
	for i := range took {
		if conns[i] != nil {
			conns[i].Close()
		}
		if took[i] == 0 {
			f["lost"]++
			continue
		}
		h.add(took[i])
	}
	h.percentiles(f)
	return report{Operations: float64(h.count), Figures: f}
}
