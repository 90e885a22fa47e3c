// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"net/netip"
	"net/rpc"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/bpftest"
	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/smc"
)

// programsDir is where the one set of eBPF programs of a host is pinned.
const programsDir = "/sys/fs/bpf/ismfs"

// Tag is what names the device in a SYN.
func (d *device) Tag() smcopt.Tag {
	d.t.Helper()
	gid, err := smc.ParseGID(d.Read("gid"))
	if err != nil {
		d.t.Fatal(err)
	}
	return smcopt.TagOf(gid)
}

// alone waits until no test of another package has a device with sockets, and clears away what killed daemons have left. It
// skips a machine where the option cannot be had, or that has devices of its own.
func alone(t *testing.T) {
	t.Helper()
	bpftest.Alone(t)
	d := mountDevice(t)
	needOption(t, d)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	d.WaitEnd()
	if left, _ := filepath.Glob(programsDir + "/v*/devices/*"); len(left) > 0 {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI must have no device but the tests': %v", left)
		}
		t.Skipf("this machine has devices of its own: %v", left)
	}
	wantNoPrograms(t)
}

// wantNoPrograms waits until nothing of the eBPF programs is left: no pin, nobody who knows the socket option.
func wantNoPrograms(t *testing.T) {
	t.Helper()
	waitFor(t, "the eBPF programs to go", func() error {
		if left, err := os.ReadDir(programsDir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s holds %v (%v)", programsDir, left, err)
		}
		if err := markFresh(smcopt.Tag{1}); !errors.Is(err, smcopt.ErrNoPrograms) {
			return fmt.Errorf("a mark: %w", err)
		}
		return nil
	})
}

// wantDevices checks which devices the set knows.
func wantDevices(t *testing.T, want ...smcopt.Tag) {
	t.Helper()
	entries, err := os.ReadDir(programsDir + "/v2/devices")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, e := range entries {
		known[e.Name()] = true
	}
	for _, tag := range want {
		if !known[tag.String()] {
			t.Errorf("the set has %v, not %v", known, tag)
		}
	}
	if len(known) != len(want) {
		t.Errorf("the set has %v, want %v", known, want)
	}
}

// markFresh marks a new socket.
func markFresh(tag smcopt.Tag) error {
	s, err := newBare(netip.IPv4Unspecified())
	if err != nil {
		return err
	}
	defer s.close()
	return smcopt.Mark(s.fd, tag)
}

// A bare is a TCP socket as the kernel gives it, for tests of the option itself.
type bare struct{ fd int }

func newBare(at netip.Addr) (bare, error) {
	family := unix.AF_INET
	if at.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return bare{-1}, err
	}
	limit := unix.NsecToTimeval(int64(patience)) // for accept and connect
	return bare{fd}, errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
}

// close resets a connection, so that nothing of it lingers.
func (s bare) close() {
	unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(s.fd)
}

// listenBare listens on a free port.
func listenBare(at netip.Addr) (s bare, addr netip.AddrPort, err error) {
	if s, err = newBare(at); err != nil {
		return s, addr, err
	}
	if err := unix.Bind(s.fd, sockaddrOf(netip.AddrPortFrom(at, 0))); err != nil {
		return s, addr, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(s.fd, 64); err != nil {
		return s, addr, fmt.Errorf("listen: %w", err)
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return s, addr, err
	}
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		addr = netip.AddrPortFrom(at, uint16(n.Port))
	case *unix.SockaddrInet6:
		addr = netip.AddrPortFrom(at, uint16(n.Port))
	}
	return s, addr, nil
}

func sockaddrOf(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

func (s bare) connect(to netip.AddrPort) error {
	err := unix.Connect(s.fd, sockaddrOf(to))
	for err == unix.EINTR { // it goes on
		if err = unix.Connect(s.fd, sockaddrOf(to)); err == unix.EISCONN {
			return nil
		}
	}
	return err
}

func (s bare) accept() (bare, error) {
	for {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
		if err != unix.EINTR {
			return bare{fd}, err
		}
	}
}

// told is what one end of a connection makes of its answer, as a library has to.
type told string

const (
	toldPlain told = "plain"
	toldSMC   told = "SMC"
	toldReset told = "reset" // an error of the question: the peer may have been told anything
)

// told asks. An end is marked if the client, or the listener, has ever been.
func (s bare) told(marked bool) told {
	if !marked {
		return toldPlain
	}
	switch a, err := smcopt.Ask(s.fd); {
	case err != nil:
		return toldReset
	case a.State == smcopt.SMC:
		return toldSMC
	case a.State == smcopt.Plain:
		return toldPlain
	default:
		return told(a.State.String())
	}
}

// toldServer is told for an accepted connection: if it has no answer, its client was told nothing.
func (s bare) toldServer(marked bool) told {
	if marked {
		if _, err := smcopt.Ask(s.fd); errors.Is(err, smcopt.ErrNotMarked) {
			return toldPlain
		}
	}
	return s.told(marked)
}

// agree says whether two ends can live with what each was told: if one speaks CLC, the other must not take it for data.
func agree(client, server told) bool {
	return client == server || client == toldReset || server == toldReset
}

// OptionArgs are a tag and an address to use it on.
type OptionArgs struct {
	Tag smcopt.Tag
	At  netip.Addr
}

type OptionReply struct{ Client, Server string }

// Options are the calls of a client that concern the option.
type Options struct{}

func init() { rpc.Register(Options{}) }

// Pair connects a marked client to a marked listener, both in this process.
func (Options) Pair(a OptionArgs, r *OptionReply) (err error) {
	client, server, err := barePair(a.At, a.Tag)
	if err != nil {
		return err
	}
	defer client.close()
	defer server.close()
	r.Client, r.Server = string(client.told(true)), string(server.toldServer(true))
	return nil
}

func barePair(at netip.Addr, tag smcopt.Tag) (client, server bare, err error) {
	l, addr, err := listenBare(at)
	if err != nil {
		return client, server, err
	}
	defer l.close()
	if client, err = newBare(at); err != nil {
		return client, server, err
	}
	if err := errors.Join(smcopt.Mark(l.fd, tag), smcopt.Mark(client.fd, tag), client.connect(addr)); err != nil {
		return client, server, err
	}
	server, err = l.accept()
	return client, server, err
}

// wantPair has a client connect to itself and checks what both ends are told.
func (c *client) wantPair(at netip.Addr, tag smcopt.Tag, want told) {
	c.t.Helper()
	var r OptionReply
	call := c.rpc.Go("Options.Pair", OptionArgs{tag, at}, &r, nil)
	select {
	case <-call.Done:
	case <-time.After(patience):
		c.t.Fatalf("%v: no answer within %v", at, patience)
	}
	if call.Error != nil || r != (OptionReply{string(want), string(want)}) {
		c.t.Errorf("%v: %+v (%v), want %s", at, r, call.Error, want)
	}
}
