// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
)

// page is what the server answers with.
var page = bytes.Repeat([]byte("<p>small</p>\n"), 50)

// gatherPath is answered when as many requests for it wait as there are connections: then each connection exists.
const gatherPath = "/gather"

// serveHTTP is net/http's server.
func serveHTTP(w *worker, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(out http.ResponseWriter, _ *http.Request) { out.Write(page) })
	var here sync.WaitGroup
	here.Add(w.Conns)
	mux.HandleFunc(gatherPath, func(out http.ResponseWriter, _ *http.Request) {
		here.Done()
		here.Wait()
		out.Write(page)
	})
	return http.Serve(checkedListener{l, w}, mux)
}

// checkedListener refuses to go on where a connection is not what it should be.
type checkedListener struct {
	net.Listener
	worker *worker
}

func (l checkedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.worker.failed(l.worker.settle(c))
	}
	return c, err
}

// prepareHTTP is net/http's client, with keep-alive.
func prepareHTTP(w *worker) (measure, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return w.dial() },
		MaxIdleConnsPerHost: w.Conns,
		DisableCompression:  true,
	}}
	gather := &crowd{}
	m := &crowd{duration: w.Duration}
	for range w.Conns {
		gather.once = append(gather.once, func() error { return get(client, gatherPath) })
		m.once = append(m.once, func() error { return get(client, "/") })
	}
	if err := gather.together(); err != nil {
		return nil, err
	}
	return m.warmedUp()
}

// together does each thing once, all at the same time.
func (m *crowd) together() error {
	errs := make([]error, len(m.once))
	var all sync.WaitGroup
	for i, once := range m.once {
		all.Go(func() { errs[i] = once() })
	}
	all.Wait()
	return errors.Join(errs...)
}

func get(client *http.Client, path string) error {
	answer, err := client.Get("http://bench" + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || int(n) != len(page)) {
		err = fmt.Errorf("GET %s: %s, %d bytes", path, answer.Status, n)
	}
	return err
}

// prepareLeanHTTP is a client that costs next to nothing: what is measured is the server.
func prepareLeanHTTP(w *worker) (measure, error) {
	conns, err := w.dialAll()
	if err != nil {
		return nil, err
	}
	m := &crowd{duration: w.Duration}
	for _, c := range conns {
		m.once = append(m.once, (&leanClient{conn: c, in: make([]byte, 4096)}).get)
	}
	return m.warmedUp()
}

type leanClient struct {
	conn net.Conn
	in   []byte
}

var (
	leanRequest = []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	leanStatus  = []byte("HTTP/1.1 200 ")
	leanLength  = []byte("Content-Length: ")
	leanBlank   = []byte("\r\n\r\n")
)

// get sends the request and reads until the end of the answer.
func (c *leanClient) get() error {
	if _, err := c.conn.Write(leanRequest); err != nil {
		return err
	}
	for have, want := 0, -1; have != want; {
		n, err := c.conn.Read(c.in[have:])
		if err != nil {
			return err
		}
		have += n
		if want < 0 {
			if want, err = answerLength(c.in[:have]); err != nil {
				return err
			}
		}
		if have > want && want >= 0 || have == len(c.in) {
			return fmt.Errorf("an answer longer than the %d bytes it announced", want)
		}
	}
	return nil
}

// answerLength returns the length of an answer with its header, -1 as long as the header is not there.
func answerLength(b []byte) (int, error) {
	end := bytes.Index(b, leanBlank)
	if end < 0 {
		return -1, nil
	}
	_, length, ok := bytes.Cut(b[:end+2], leanLength)
	if !ok || !bytes.HasPrefix(b, leanStatus) {
		return 0, fmt.Errorf("no answer of 200 with a length: %q", b[:end])
	}
	digits, _, _ := bytes.Cut(length, []byte("\r\n"))
	n, err := strconv.Atoi(string(digits))
	return end + len(leanBlank) + n, err
}
