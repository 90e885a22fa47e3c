// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"io"
	"sync"
)

var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// ReadFrom writes what it reads from r, until io.EOF.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	buf := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			written, werr := c.Write(buf[:n])
			total += int64(written)
			if werr != nil {
				return total, werr
			}
		}
		switch err {
		case nil:
		case io.EOF:
			return total, nil
		default:
			return total, err
		}
	}
}

// WriteTo writes what it reads to w, straight from the ring, until io.EOF. Until it returns, other reads fail with [ErrLent].
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		b, err := c.Borrow()
		switch err {
		case nil:
		case io.EOF:
			return total, nil
		default:
			return total, err
		}
		n, err := w.Write(b)
		if n < 0 || n > len(b) {
			n, err = 0, io.ErrShortWrite
		}
		total += int64(n)
		if rerr := c.Release(n); err == nil {
			err = rerr
		}
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}
