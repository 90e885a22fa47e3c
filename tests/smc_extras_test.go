// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/libsmc"
)

func init() { rpc.Register(Extras{}) }

// Extras are calls of a peer that few tests need.
type Extras struct{}

// CountConns counts the process's TCP sockets that are connected to an address.
func (Extras) CountConns(a PeerArgs, r *PeerReply) error {
	want, err := net.ResolveTCPAddr("tcp", a.Address)
	if err != nil {
		return err
	}
	own := make(map[string]bool)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
	}
	table, err := os.ReadFile("/proc/self/net/tcp")
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if strings.HasSuffix(f[2], fmt.Sprintf(":%04X", want.Port)) && own[f[9]] {
			r.N++
		}
	}
	return err
}

// OneGoroutine connects to an own listener; r.ID is the client's end and r.N the server's.
func (Extras) OneGoroutine(a PeerArgs, r *PeerReply) error {
	client, err := libsmc.Dial("tcp", a.Address)
	if err != nil {
		return r.answer(err)
	}
	server, err := listenerOf(a.ID).Accept()
	if err != nil {
		return r.answer(err)
	}
	if _, err := server.Write([]byte("x")); err != nil {
		return r.answer(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		return r.answer(err)
	}
	keep(server, r)
	r.N = int64(r.ID)
	keep(client, r)
	return nil
}

// Inherited makes a listener of descriptor 3.
func (Extras) Inherited(a PeerArgs, r *PeerReply) error {
	f := os.NewFile(3, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err == nil && a.Sockets == overSMC {
		l = libsmc.NewListener(l.(*net.TCPListener))
	}
	if err == nil {
		keepListener(l, r)
	}
	return r.answer(err)
}

// ListenerFile makes a File of a listener, for another process; r.N is its descriptor.
func (Extras) ListenerFile(a PeerArgs, r *PeerReply) error {
	f, err := listenerOf(a.ID).(*libsmc.Listener).File()
	if err != nil {
		return r.answer(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	r.N = int64(fd)
	return r.answer(err)
}

// DialBuffer dials with a ReadBuffer, ListenBuffer listens with one.
func (Extras) DialBuffer(a PeerArgs, r *PeerReply) error {
	c, err := (&libsmc.Dialer{ReadBuffer: int(a.N)}).Dial("tcp", a.Address)
	if err == nil {
		keep(c, r)
	}
	return r.answer(err)
}

func (Extras) ListenBuffer(a PeerArgs, r *PeerReply) error {
	l, err := (&libsmc.ListenConfig{ReadBuffer: int(a.N)}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err == nil {
		keepListener(l, r)
	}
	return r.answer(err)
}

// Reserve returns what is in reserved space, and commits nothing.
func (Extras) Reserve(a PeerArgs, r *PeerReply) error {
	c := connOf(a.ID).(*libsmc.Conn)
	b, err := c.Reserve(int(a.N))
	if err != nil {
		return r.answer(err)
	}
	r.Data = append(r.Data, b...)
	return r.answer(c.Commit(0))
}
