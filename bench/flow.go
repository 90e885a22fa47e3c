// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A flow is a connection in one direction. On the way back comes nothing but, after the end, how many bytes have arrived.

// absorb reads until the end and then says how much it was.
func absorb(w *worker, c net.Conn) error {
	e := w.newEnd(c, flowRoom)
	var total uint64
	var reads int64
	for ; ; reads++ {
		n, err := e.receiveSome()
		total += uint64(n)
		if errors.Is(err, io.EOF) {
			w.reads.Add(reads)
			_, err = c.Write(binary.BigEndian.AppendUint64(nil, total))
			return err
		}
		if err != nil {
			return err
		}
	}
}

// prepareFlow warms up on a connection of its own; its measure can be used once.
func prepareFlow(w *worker) (measure, error) {
	warm, err := w.dial()
	if err != nil {
		return nil, err
	}
	if _, err := w.flow(warm, w.Duration/10); err != nil {
		return nil, err
	}
	c, err := w.dial()
	if err != nil {
		return nil, err
	}
	return func() (report, error) { return w.flow(c, w.Duration) }, nil
}

// flow sends for some time. The clock is looked at once in some 64 KiB.
func (w *worker) flow(c net.Conn, d time.Duration) (report, error) {
	defer c.Close()
	e := w.newEnd(c, flowRoom)
	batch := max((64<<10)/w.Size, 1)
	messages := 0
	start := time.Now()
	for time.Since(start) < d {
		for range batch {
			if err := e.send(w.Size); err != nil {
				return report{}, err
			}
		}
		messages += batch
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return report{}, err
	}
	var answer [8]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return report{}, fmt.Errorf("the receiver's count: %w", err)
	}
	took := time.Since(start).Seconds()
	bytes := float64(messages) * float64(w.Size)
	if got := binary.BigEndian.Uint64(answer[:]); float64(got) != bytes {
		return report{}, fmt.Errorf("%d messages of %d bytes were sent, and %d bytes arrived", messages, w.Size, got)
	}
	return report{Operations: float64(messages), Bytes: bytes, Figures: figures{
		"per_s": float64(messages) / took, "mb_per_s": bytes / took / 1e6,
	}}, nil
}
