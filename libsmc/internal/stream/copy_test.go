// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

func TestCopy(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		data := random(5, 1<<20)
		go func() {
			n, err := c1.ReadFrom(iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(data))))
			if n != int64(len(data)) || err != nil {
				t.Errorf("ReadFrom: %d, %v", n, err)
			}
			c1.CloseWrite()
		}()
		var got bytes.Buffer
		n, err := c2.WriteTo(&got)
		if n != int64(len(data)) || err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Fatalf("WriteTo: %d, %v", n, err)
		}
	})
}

// A source that fails ends ReadFrom after what it gave; a writer that takes less leaves the rest.
func TestCopyErrors(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c1, c2 := d.mustPair(t, ringSize)
		failure := errors.New("failure")
		n, err := c1.ReadFrom(io.MultiReader(bytes.NewReader([]byte("some bytes")), iotest.ErrReader(failure)))
		if n != 10 || err != failure {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		n, err = c2.WriteTo(writerFunc(func(p []byte) (int, error) { return 5, failure }))
		if n != 5 || err != failure {
			t.Errorf("WriteTo: %d, %v", n, err)
		}
		mustRead(t, c2, []byte("bytes"))
		c2.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err = c2.WriteTo(io.Discard); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("WriteTo: %d, %v", n, err)
		}
		c2.Close()
		if _, err = c1.ReadFrom(bytes.NewReader(make([]byte, 1<<20))); !isReset(err) {
			t.Errorf("ReadFrom: %v", err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A source or a writer that blocks keeps nobody from closing, and others from waiting no longer than they may.
func TestCopyBlocked(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for name, end := range map[string]func(c *Conn) error{
			"Close": (*Conn).Close, "CloseWrite": (*Conn).CloseWrite,
		} {
			t.Run(name, func(t *testing.T) {
				c1, c2 := d.mustPair(t, ringSize)
				r, w := io.Pipe()
				var calls sync.WaitGroup
				want := map[string]error{"Close": net.ErrClosed, "CloseWrite": syscall.EPIPE}[name]
				calls.Go(func() {
					if _, err := c1.ReadFrom(r); !errors.Is(err, want) {
						t.Errorf("ReadFrom: %v", err)
					}
				})
				w.Write([]byte("sent"))
				mustRead(t, c2, []byte("sent"))
				if !c1.copied {
					waitFor(t, "the source to be asked", func() bool { return c1.isMoving() })
					c1.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
					if _, err := c1.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Write: %v", err)
					}
					c1.SetWriteDeadline(time.Time{})
					calls.Go(func() {
						if _, err := c1.Write([]byte("x")); !errors.Is(err, want) {
							t.Errorf("Write: %v", err)
						}
					})
					time.Sleep(10 * time.Millisecond)
				}
				if err := end(c1); err != nil {
					t.Error(err)
				}
				wantRead(t, c2, io.EOF)
				w.Write([]byte("lost"))
				w.Close()
				calls.Wait()
			})
		}
	})
}

func (c *Conn) isMoving() bool {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.writing.moving
}
