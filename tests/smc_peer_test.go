// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// The child's half of the harness in smc_harness_test.go.

// PeerArgs are the arguments of every call of Sockets; each takes what it needs.
type PeerArgs struct {
	Sockets sockets       `json:",omitempty"`
	Network string        `json:",omitempty"`
	Address string        `json:",omitempty"`
	ID      int           `json:",omitempty"`
	Seed    uint64        `json:",omitempty"`
	N       int64         `json:",omitempty"`
	Chunk   int           `json:",omitempty"`
	Data    []byte        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
}

type PeerReply struct {
	Err           *PeerError `json:",omitempty"`
	ID            int        `json:",omitempty"`
	IDs           []int      `json:",omitempty"`
	Local, Remote string     `json:",omitempty"`
	N             int64      `json:",omitempty"`
	Data          []byte     `json:",omitempty"`
	Sum           string     `json:",omitempty"`
	Info          PeerInfo
	Held          Held
}

// PeerInfo is a connection's Info as it travels: an error cannot.
type PeerInfo struct {
	libsmc.Info
	CauseText string
	Plain     bool // of package net
}

func (i PeerInfo) String() string {
	return fmt.Sprintf("%v (client %v, reason %v, peer diagnosis %v, cause %q)",
		i.Mode, i.Client, i.Reason, i.PeerDiagnosis, i.CauseText)
}

// Held counts what a process has: goroutines, descriptors, mappings of the device's files.
type Held struct{ Goroutines, Descriptors, Mappings int }

// PeerError is an error of the child. errors.Is knows those of errorNames, and errnos.
type PeerError struct {
	Text  string
	Errno syscall.Errno `json:",omitempty"`
	Is_   []string      `json:"Is,omitempty"`
}

var errorNames = map[string]error{
	"EOF": io.EOF, "unexpected EOF": io.ErrUnexpectedEOF, "deadline": os.ErrDeadlineExceeded, "closed": net.ErrClosed,
	"canceled": context.Canceled, "context deadline": context.DeadlineExceeded,
	"SMC mode": libsmc.ErrSMCMode, "TCP mode": libsmc.ErrTCPMode, "lent": libsmc.ErrLent,
}

func (e *PeerError) Error() string { return e.Text }

func (e *PeerError) Unwrap() (is []error) {
	for _, name := range e.Is_ {
		is = append(is, errorNames[name])
	}
	if e.Errno != 0 {
		is = append(is, e.Errno)
	}
	return is
}

// answer puts an error into the reply.
func (r *PeerReply) answer(err error) error {
	if err == nil {
		return nil
	}
	r.Err = &PeerError{Text: err.Error()}
	errors.As(err, &r.Err.Errno)
	for name, e := range errorNames {
		if errors.Is(err, e) {
			r.Err.Is_ = append(r.Err.Is_, name)
		}
	}
	return nil
}

// handles are the child's sockets by number.
var handles struct {
	mu        sync.Mutex
	last      int
	conns     map[int]net.Conn
	listeners map[int]net.Listener
}

func init() { rpc.Register(Sockets{}) }

// Sockets are the calls.
type Sockets struct{}

func keep(c net.Conn, r *PeerReply) {
	handles.mu.Lock()
	defer handles.mu.Unlock()
	if handles.conns == nil {
		handles.conns = make(map[int]net.Conn)
	}
	handles.last++
	handles.conns[handles.last] = c
	r.ID, r.Local, r.Remote = handles.last, c.LocalAddr().String(), c.RemoteAddr().String()
}

func keepListener(l net.Listener, r *PeerReply) {
	handles.mu.Lock()
	defer handles.mu.Unlock()
	if handles.listeners == nil {
		handles.listeners = make(map[int]net.Listener)
	}
	handles.last++
	handles.listeners[handles.last] = l
	r.ID, r.Local = handles.last, l.Addr().String()
}

// stream is what both kinds of connection can do.
type stream interface {
	net.Conn
	io.ReaderFrom
	io.WriterTo
	CloseRead() error
	CloseWrite() error
	SetLinger(int) error
	SyscallConn() (syscall.RawConn, error)
}

// connOf finds a connection. A wrong number is the test's mistake, and panics.
func connOf(id int) stream {
	handles.mu.Lock()
	defer handles.mu.Unlock()
	return handles.conns[id].(stream)
}

func listenerOf(id int) net.Listener {
	handles.mu.Lock()
	defer handles.mu.Unlock()
	return handles.listeners[id]
}

func (Sockets) Listen(a PeerArgs, r *PeerReply) error {
	listen := net.Listen
	switch a.Sockets {
	case overSMC:
		listen = libsmc.Listen
	case marked:
		listen = func(network, address string) (net.Listener, error) {
			config := net.ListenConfig{Control: markIt}
			config.SetMultipathTCP(false)
			return config.Listen(context.Background(), network, address)
		}
	}
	l, err := listen(a.Network, a.Address)
	if err == nil {
		keepListener(l, r)
	}
	return r.answer(err)
}

// markIt marks a socket as libsmc does.
func markIt(_, _ string, raw syscall.RawConn) (err error) {
	text, err := os.ReadFile(filepath.Join(os.Getenv("ISMFS_MOUNT"), "devices/loopback-ism/gid"))
	if err != nil {
		return err
	}
	gid, err := smc.ParseGID(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { err = smcopt.Mark(int(fd), smcopt.TagOf(gid)) })
	return err
}

func (Sockets) Accept(a PeerArgs, r *PeerReply) error {
	c, err := listenerOf(a.ID).Accept()
	if err == nil {
		keep(c, r)
	}
	return r.answer(err)
}

func (Sockets) Echo(a PeerArgs, r *PeerReply) error {
	l := listenerOf(a.ID)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return nil
}

func (Sockets) CloseListener(a PeerArgs, r *PeerReply) error {
	return r.answer(listenerOf(a.ID).Close())
}

func (Sockets) Dial(a PeerArgs, r *PeerReply) error {
	dial := net.Dial
	switch a.Sockets {
	case overSMC:
		dial = libsmc.Dial
	case marked:
		dial = (&net.Dialer{Control: markIt}).Dial
	}
	c, err := dial(a.Network, a.Address)
	if err == nil {
		keep(c, r)
	}
	return r.answer(err)
}

// Burst dials N times at once, and tells how many connections are SMC-D, and why the first one that is not is not.
func (Sockets) Burst(a PeerArgs, r *PeerReply) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	for range a.N {
		all.Go(func() {
			c, err := libsmc.Dial(a.Network, a.Address)
			if err == nil {
				err = c.(*libsmc.Conn).Handshake(context.Background())
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				keep(c, &PeerReply{})
				if i := c.(*libsmc.Conn).Info(); i.Mode != libsmc.SMCD {
					err = errors.New(PeerInfo{Info: i}.String())
				}
			}
			switch {
			case err == nil:
				r.N++
			case r.Err == nil:
				r.answer(err)
			}
		})
	}
	all.Wait()
	return nil
}

func (Sockets) CloseIdle(PeerArgs, *PeerReply) error {
	libsmc.CloseIdle()
	return nil
}

func (Sockets) Held(_ PeerArgs, r *PeerReply) error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	r.Held = Held{runtime.NumGoroutine(), len(fds), strings.Count(string(maps), "loopback-ism")}
	return err
}

func (Sockets) Handshake(a PeerArgs, r *PeerReply) error {
	c, ok := connOf(a.ID).(*libsmc.Conn)
	if !ok {
		return nil
	}
	ctx := context.Background()
	if a.Timeout != 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, a.Timeout)
		defer cancel()
	}
	return r.answer(c.Handshake(ctx))
}

func (Sockets) Info(a PeerArgs, r *PeerReply) error {
	c, ok := connOf(a.ID).(*libsmc.Conn)
	if !ok {
		r.Info = PeerInfo{Info: libsmc.Info{Mode: libsmc.TCP}, Plain: true}
		return nil
	}
	r.Info.Info = c.Info()
	if err := r.Info.Cause; err != nil {
		r.Info.Cause, r.Info.CauseText = nil, err.Error()
	}
	return nil
}

func (Sockets) Write(a PeerArgs, r *PeerReply) error {
	n, err := connOf(a.ID).Write(a.Data)
	r.N = int64(n)
	return r.answer(err)
}

func (Sockets) Read(a PeerArgs, r *PeerReply) error {
	buf := make([]byte, a.N)
	n, err := connOf(a.ID).Read(buf)
	r.Data = buf[:n]
	return r.answer(err)
}

func (Sockets) ReadFull(a PeerArgs, r *PeerReply) error {
	buf := make([]byte, a.N)
	n, err := io.ReadFull(connOf(a.ID), buf)
	r.Data = buf[:n]
	return r.answer(err)
}

func (Sockets) ReadAll(a PeerArgs, r *PeerReply) (err error) {
	r.Data, err = io.ReadAll(connOf(a.ID))
	return r.answer(err)
}

// contents is the stream of bytes that follows from a seed, and sizes the sizes of its pieces.
func contents(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

func sizes(seed uint64, most int) func(left int64) int {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(left int64) int { return int(min(left, 1+r.Int64N(int64(most)))) }
}

func (Sockets) Send(a PeerArgs, r *PeerReply) error {
	c, size, from, sum := connOf(a.ID), sizes(a.Seed, a.Chunk), contents(a.Seed), sha256.New()
	buf := make([]byte, a.Chunk)
	for r.N < a.N {
		b := buf[:size(a.N-r.N)]
		from.Read(b)
		sum.Write(b)
		n, err := c.Write(b)
		r.N += int64(n)
		if err != nil {
			return r.answer(err)
		}
	}
	r.Sum = hex.EncodeToString(sum.Sum(nil))
	return nil
}

func (Sockets) Receive(a PeerArgs, r *PeerReply) error {
	c, size, sum := connOf(a.ID), sizes(a.Seed, a.Chunk), sha256.New()
	buf := make([]byte, a.Chunk)
	for r.N < a.N {
		n, err := c.Read(buf[:size(a.N-r.N)])
		sum.Write(buf[:n])
		r.N += int64(n)
		if err != nil && r.N < a.N {
			return r.answer(fmt.Errorf("after %d bytes: %w", r.N, err))
		}
	}
	r.Sum = hex.EncodeToString(sum.Sum(nil))
	return nil
}

func (Sockets) Close(a PeerArgs, r *PeerReply) error      { return r.answer(connOf(a.ID).Close()) }
func (Sockets) CloseRead(a PeerArgs, r *PeerReply) error  { return r.answer(connOf(a.ID).CloseRead()) }
func (Sockets) CloseWrite(a PeerArgs, r *PeerReply) error { return r.answer(connOf(a.ID).CloseWrite()) }

func (Sockets) SetLinger(a PeerArgs, r *PeerReply) error {
	return r.answer(connOf(a.ID).SetLinger(int(a.N)))
}

func (Sockets) SetDeadline(a PeerArgs, r *PeerReply) error {
	var at time.Time
	if a.Timeout != 0 {
		at = time.Now().Add(a.Timeout)
	}
	c := connOf(a.ID)
	set := map[string]func(time.Time) error{"rw": c.SetDeadline, "r": c.SetReadDeadline, "w": c.SetWriteDeadline}[a.Network]
	return r.answer(set(at))
}
