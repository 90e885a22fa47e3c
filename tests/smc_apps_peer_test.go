// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/libsmc"
)

func init() { rpc.Register(new(Apps)) }

// Apps are programs in a peer that use sockets.
type Apps struct {
	mu       sync.Mutex
	kept     []int
	borrowed sync.Map // by connection
}

func (s *Apps) keep(c net.Conn) {
	var r PeerReply
	keep(c, &r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, r.ID)
}

// Kept are the connections that the programs made or accepted.
func (s *Apps) Kept(_ PeerArgs, r *PeerReply) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.IDs = append(r.IDs, s.kept...)
	return nil
}

func (s *Apps) Addresses(a PeerArgs, r *PeerReply) error {
	c := connOf(a.ID)
	r.Local, r.Remote = c.LocalAddr().String(), c.RemoteAddr().String()
	return nil
}

// ServeTLS sends back what a TLS client sends.
func (s *Apps) ServeTLS(a PeerArgs, r *PeerReply) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	c := tls.Server(connOf(a.ID), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	go func() {
		io.Copy(c, c)
		c.CloseWrite()
	}()
	return nil
}

// TalkTLS sends N bytes, and compares what comes back.
func (s *Apps) TalkTLS(a PeerArgs, r *PeerReply) error {
	c := tls.Client(connOf(a.ID), &tls.Config{InsecureSkipVerify: true})
	data := make([]byte, a.N)
	contents(uint64(a.ID)).Read(data)
	go func() {
		c.Write(data)
		c.CloseWrite()
	}()
	back, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(back, data) {
		err = errors.New("what came back is not the same")
	}
	return r.answer(err)
}

// ServeHTTP answers /N with a body of N bytes that follow from N, and posts with what was posted.
func (s *Apps) ServeHTTP(a PeerArgs, r *PeerReply) error {
	server := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { s.keep(c); return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			n, err := strconv.ParseInt(strings.Trim(req.URL.Path, "/"), 10, 64)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			io.CopyN(w, contents(uint64(n)), n)
		}),
	}
	go server.Serve(listenerOf(a.ID))
	return nil
}

// GetHTTP makes N requests, eight at once; r.N is the bytes of their bodies.
func (s *Apps) GetHTTP(a PeerArgs, r *PeerReply) error {
	client := http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 8, MaxConnsPerHost: 8,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := libsmc.DialContext(ctx, network, address)
			if err == nil {
				s.keep(c)
			}
			return c, err
		},
	}}
	var all sync.WaitGroup
	var next, total atomic.Int64
	failures := make(chan error, 8)
	for range 8 {
		all.Go(func() {
			for n := next.Add(1); n <= a.N; n = next.Add(1) {
				size := n * n * 7
				if err := get(&client, a.Address, size); err != nil {
					failures <- err
					return
				}
				total.Add(size)
			}
		})
	}
	all.Wait()
	close(failures)
	r.N = total.Load()
	s.Kept(a, r)
	return r.answer(<-failures)
}

func get(client *http.Client, address string, size int64) error {
	response, err := client.Get(fmt.Sprintf("http://%s/%d", address, size))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	want := make([]byte, size)
	contents(uint64(size)).Read(want)
	if err == nil && !bytes.Equal(body, want) {
		err = fmt.Errorf("a body of %d bytes is not the %d that it should be", len(body), size)
	}
	return err
}

// DialWith dials with one field set; r.N is how often it counted. With N the Control function refuses.
func (s *Apps) DialWith(a PeerArgs, r *PeerReply) error {
	var d libsmc.Dialer
	called := func() error {
		r.N++
		if a.N != 0 {
			return syscall.EPERM
		}
		return nil
	}
	switch a.Network {
	case "Control":
		d.Control = func(string, string, syscall.RawConn) error { return called() }
	case "ControlContext":

		d.Control = func(string, string, syscall.RawConn) error { return errors.New("ControlContext comes first") }
		d.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error { return called() }
	case "KeepAlive":
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: 77 * time.Second}
		r.N = 1
	case "LocalAddr":
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}
	case "Timeout":
		d.Deadline = time.Now().Add(-time.Second)
	}
	c, err := d.Dial("tcp", a.Address)
	if err != nil {
		return r.answer(err)
	}
	if a.Network == "LocalAddr" && strings.HasPrefix(c.LocalAddr().String(), "127.0.0.7:") {
		r.N = 1
	}
	keep(c, r)
	return nil
}

// ListenWith listens with a Control function; r.N is how often it was called.
func (s *Apps) ListenWith(_ PeerArgs, r *PeerReply) error {
	var config libsmc.ListenConfig
	config.Control = func(string, string, syscall.RawConn) error { r.N++; return nil }
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err == nil {
		keepListener(l, r)
	}
	return r.answer(err)
}

func (s *Apps) KeepIdle(a PeerArgs, r *PeerReply) error {
	raw, err := connOf(a.ID).SyscallConn()
	if err != nil {
		return r.answer(err)
	}
	raw.Control(func(fd uintptr) {
		var n int
		n, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		r.N = int64(n)
	})
	return r.answer(err)
}

// ReadFrom sends a file and ends writing, WriteTo writes to a file until the end.
func (s *Apps) ReadFrom(a PeerArgs, r *PeerReply) error {
	f, err := os.Open(a.Address)
	if err != nil {
		return r.answer(err)
	}
	defer f.Close()
	r.N, err = io.Copy(connOf(a.ID), f)
	return r.answer(errors.Join(err, connOf(a.ID).CloseWrite()))
}

func (s *Apps) WriteTo(a PeerArgs, r *PeerReply) error {
	f, err := os.Create(a.Address)
	if err != nil {
		return r.answer(err)
	}
	r.N, err = io.Copy(f, connOf(a.ID))
	return r.answer(errors.Join(err, f.Close()))
}

func rawly(c *libsmc.Conn, f func(syscall.RawConn) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return f(raw)
}

// Descriptor asks for what only TCP has; r.N is 1 if it was there.
func (s *Apps) Descriptor(a PeerArgs, r *PeerReply) (err error) {
	c := connOf(a.ID).(*libsmc.Conn)
	switch a.Network {
	case "look": // as connection pools do
		err = rawly(c, func(raw syscall.RawConn) error {
			return raw.Read(func(fd uintptr) bool {
				n, _, e := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				if n != -1 || e != syscall.EAGAIN {
					r.N = -1
				}
				return true
			})
		})
		if r.N < 0 {
			return nil
		}
	case "read":
		err = rawly(c, func(raw syscall.RawConn) error { return raw.Read(func(uintptr) bool { return false }) })
	case "write":
		err = rawly(c, func(raw syscall.RawConn) error { return raw.Write(func(uintptr) bool { return true }) })
	case "File":
		var f *os.File
		if f, err = c.File(); err == nil {
			f.Close()
		}
	case "TCPConn":
		if c.TCPConn() == nil {
			return nil
		}
	}
	r.N = 1
	return r.answer(err)
}

// Options sets what net.TCPConn has to set.
func (s *Apps) Options(a PeerArgs, r *PeerReply) error {
	c := connOf(a.ID).(*libsmc.Conn)
	return r.answer(errors.Join(c.SetNoDelay(true), c.SetKeepAlive(true), c.SetKeepAlivePeriod(time.Minute),
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Count: 3}), c.SetReadBuffer(1<<20), c.SetWriteBuffer(1<<20),
		c.SetLinger(5)))
}

// Borrow keeps what it borrowed for Borrowed; Fill reserves and writes there.
func (s *Apps) Borrow(a PeerArgs, r *PeerReply) error {
	b, err := connOf(a.ID).(*libsmc.Conn).Borrow()
	if err == nil {
		s.borrowed.Store(a.ID, b)
	}
	r.Data = append(r.Data, b...)
	return r.answer(err)
}

func (s *Apps) Borrowed(a PeerArgs, r *PeerReply) error {
	b, _ := s.borrowed.Load(a.ID)
	r.Data = append(r.Data, b.([]byte)...)
	return nil
}

func (s *Apps) Release(a PeerArgs, r *PeerReply) error {
	return r.answer(connOf(a.ID).(*libsmc.Conn).Release(int(a.N)))
}

func (s *Apps) Fill(a PeerArgs, r *PeerReply) error {
	b, err := connOf(a.ID).(*libsmc.Conn).Reserve(len(a.Data))
	r.N = int64(copy(b, a.Data))
	return r.answer(err)
}

func (s *Apps) Commit(a PeerArgs, r *PeerReply) error {
	return r.answer(connOf(a.ID).(*libsmc.Conn).Commit(int(a.N)))
}
