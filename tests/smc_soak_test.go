// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestSoak moves random bytes in pieces of random sizes both ways at once over several connections, with a checksum on each
// transfer, while the knobs turn and connections come and go. At the end xfer_bytes is what was sent. ISMFS_SOAK says for how
// long (make soak).
func TestSoak(t *testing.T) {
	duration := 3 * time.Second
	if s := os.Getenv("ISMFS_SOAK"); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	d := mountSMC(t)
	gid := d.Read("gid")
	client, server := startPeer(t, d.Point), startPeer(t, d.Point, asUser(1000))
	before, beforeServer := client.Held(), server.Held()
	end := time.Now().Add(duration)
	var all sync.WaitGroup
	var sent, connections atomic.Int64
	failures := make(chan error, 100)
	start := d.xferBytes()
	const lanes = 6
	for lane := range lanes {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(lane), uint64(time.Now().UnixNano())))
			for time.Now().Before(end) {
				if err := soakConnection(client, l, gid, r, end, &sent); err != nil {
					failures <- fmt.Errorf("lane %d: %w", lane, err)
					return
				}
				connections.Add(1)
			}
			if err := l.Close(); err != nil {
				failures <- err
			}
		})
	}
	all.Go(func() {
		r := rand.New(rand.NewPCG(7, uint64(time.Now().UnixNano())))
		for time.Now().Before(end) {
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			knob := []string{"dmb_copy", "dmb_type"}[r.IntN(2)]
			if err := d.Write(knob, strconv.Itoa(r.IntN(2))); err != nil {
				failures <- err
				return
			}
		}
	})
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if t.Failed() {
		return
	}
	if grown := d.xferBytes() - start; grown != sent.Load() {
		t.Errorf("xfer_bytes grew by %d, sent were %d", grown, sent.Load())
	}
	h := d.handshakes()
	if len(h.ClientFallback)+len(h.ServerFallback)+h.ClientErrors+h.ServerErrors != 0 {
		t.Errorf("counted %+v", h)
	}
	wantNoMore(t, client, before)
	wantNoMore(t, server, beforeServer)
	d.WantCount(0)
	t.Logf("%d connections, %d MiB in %v", connections.Load(), sent.Load()>>20, duration)
}

// soakConnection is the life of one connection: some transfers both ways at once.
func soakConnection(client *peer, l *peerListener, gid string, r *rand.Rand, end time.Time, sent *atomic.Int64) error {
	a, err := client.Dial(overSMC, "tcp", l.Address)
	if err != nil {
		return err
	}
	b, err := l.Accept()
	if err != nil {
		return err
	}
	if err := a.Handshake(0); err != nil {
		return err
	}
	if err := checkSMCD(gid, a.Info(), b.Info()); err != nil {
		return err
	}
	for range 1 + r.IntN(20) {
		there, back := r.Int64N(8<<20), r.Int64N(8<<20)
		chunk, chunkBack := 1+r.IntN(200<<10), 1+r.IntN(200<<10)
		if min(chunk, chunkBack) < 100 {
			there, back = there>>8, back>>8
		}
		returned := later(func() (int, error) { return 0, transferChunks(b, a, back, chunkBack) })
		err := transferChunks(a, b, there, chunk)
		if _, errBack := returned(); err != nil || errBack != nil {
			return errors.Join(err, errBack)
		}
		sent.Add(there + back)
		if time.Now().After(end) {
			break
		}
	}
	if r.IntN(2) == 0 {
		a, b = b, a
	}
	return errors.Join(a.Close(), b.Close())
}
