// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
)

// A storm is workers of a client's that connect to an echo, use the connection and close it, over and over, while the test does
// something to the device. A connection may be broken by that; anything else ends its worker.
type storm struct {
	workers       []func() (int, error)
	stop          atomic.Bool
	whole, broken atomic.Int32
}

func startStorm(client *peer, address string, workers int) *storm {
	s := &storm{}
	for range workers {
		s.workers = append(s.workers, later(func() (int, error) { return s.work(client, address) }))
	}
	return s
}

func (s *storm) work(client *peer, address string) (n int, err error) {
	for ; !s.stop.Load(); n++ {
		err := echoOnce(client, address)
		switch {
		case err == nil:
			s.whole.Add(1)
		case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
			s.broken.Add(1)
		default:
			return n, err
		}
	}
	return n, nil
}

// end stops the workers. Each must have come to its end well, and have had a connection.
func (s *storm) end(t *testing.T) {
	t.Helper()
	s.stop.Store(true)
	for _, wait := range s.workers {
		if n, err := wait(); err != nil || n == 0 {
			t.Errorf("after %d connections: %v", n, err)
		}
	}
	t.Logf("%d connections were whole, %d were broken", s.whole.Load(), s.broken.Load())
}

// echoOnce has a server's echo send something back.
func echoOnce(client *peer, address string) error {
	c, err := client.Dial(overSMC, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(patience); err != nil {
		return err
	}
	return transferChunks(c, c, 200<<10, 16<<10)
}
