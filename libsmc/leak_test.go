// SPDX-License-Identifier: Apache-2.0

//go:build linux

package libsmc_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// wantHeld waits until nothing more is held than before, and no goroutine is inside the package.
func wantHeld(t *testing.T, before held) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		libsmc.CloseIdle()
		now := holds(t)
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		inside := strings.Contains(string(stacks), "/libsmc.") || strings.Contains(string(stacks), "/libsmc/internal/")
		if now.descriptors <= before.descriptors && now.mappings <= before.mappings && now.dmbs <= before.dmbs && !inside {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("held %+v, before %+v\n%s", now, before, stacks)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leaves runs something ten times and sees that nothing is left of it.
func leaves(t *testing.T, use func(i int)) {
	t.Helper()
	use(0) // what is made once: the procs block
	libsmc.CloseIdle()
	time.Sleep(50 * time.Millisecond)
	wantHeld(t, held{1 << 20, 1 << 20, 0})
	before := holds(t)
	for i := range 10 {
		use(i)
	}
	wantHeld(t, before)
}

func TestNothingLeaks(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			w.set(t)
			leaves(t, func(i int) {
				a, b, err := w.pair()
				if err != nil {
					t.Fatal(err)
				}
				var calls sync.WaitGroup
				calls.Go(func() { a.Read(make([]byte, 1)) })
				calls.Go(func() { a.Write(make([]byte, 8<<20)) })
				calls.Go(func() { b.SetDeadline(time.Now().Add(time.Hour)); b.Read(make([]byte, 100)) })
				time.Sleep(time.Duration(i) * 200 * time.Microsecond)
				first, last := a, b
				switch i % 4 {
				case 1:
					a.SetLinger(0)
				case 2:
					a.CloseWrite()
				case 3:
					first, last = b, a
				}
				first.Close()
				last.Close()
				calls.Wait()
			})
		})
	}
}

// TestActive0LeaksNothing: connections that the device ends, and those that it declines.
func TestActive0LeaksNothing(t *testing.T) {
	w := ways()[0]
	w.set(t)
	d := device(t)
	active := func(s tree.State) {
		if err := d.SetActive(s); err != nil {
			t.Fatal(err)
		}
	}
	leaves(t, func(int) {
		a, b, err := w.pair()
		if err != nil {
			t.Fatal(err)
		}
		active(tree.Inactive)
		defer active(tree.Active)
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Error("Read after active 0")
		}
		a.Close()
		b.Close()
		w := w
		w.mode = libsmc.TCP
		if a, b, err = w.pair(); err != nil {
			t.Fatal(err)
		}
		a.Close()
		b.Close()
	})
}

// TestFailedHandshakesLeakNothing goes through the ways in which there is no connection, at either side.
func TestFailedHandshakesLeakNothing(t *testing.T) {
	w := ways()[0]
	w.set(t)
	for name, fail := range map[string]func(t *testing.T){
		"nobody listens":          refused,
		"the dial is given up":    dialGivenUp,
		"nobody accepts":          neverAccepted,
		"the client closes early": func(t *testing.T) { badServer(t, nil, false) },
		"the server ends":         func(t *testing.T) { badServer(t, nil, true) },
		"the server sends junk":   func(t *testing.T) { badServer(t, []byte(strings.Repeat("junk", 20)), false) },
		"the server declines":     func(t *testing.T) { badServer(t, decline(), false) },
		"the client ends":         func(t *testing.T) { badClient(t, nil) },
		"the client sends junk":   func(t *testing.T) { badClient(t, []byte(strings.Repeat("junk", 20))) },
		"the client declines":     func(t *testing.T) { badClient(t, decline()) },
		"no Confirm":              func(t *testing.T) { badClient(t, proposal(t)) },
		"junk for a Confirm":      func(t *testing.T) { badClient(t, append(proposal(t), strings.Repeat("junk", 40)...)) },
		"a Decline for a Confirm": func(t *testing.T) { badClient(t, append(proposal(t), decline()...)) },
		"half a Proposal":         func(t *testing.T) { badClient(t, proposal(t)[:100]) },
	} {
		t.Run(name, func(t *testing.T) { leaves(t, func(int) { fail(t) }) })
	}
}

func decline() []byte {
	d := smc.NewDecline(smc.V2, smc.DeclMem)
	return d.AppendTo(nil)
}

func proposal(t *testing.T) []byte {
	gid, err := device(t).GID()
	if err != nil {
		t.Fatal(err)
	}
	g, err := smc.ParseGID(gid)
	if err != nil {
		t.Fatal(err)
	}
	eid, err := smc.ParseEID(daemon.ueids[0])
	if err != nil {
		t.Fatal(err)
	}
	p := smc.NewProposal(smc.Local{GID: g, CHID: smc.CHIDLoopback, Active: true, Release: smc.Release, UEIDs: []smc.EID{eid}})
	b, err := p.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mark makes sockets announce SMC, for programs that then do what the test wants.
func mark(t *testing.T) func(string, string, syscall.RawConn) error {
	text, err := device(t).GID()
	if err != nil {
		t.Fatal(err)
	}
	gid, err := smc.ParseGID(text)
	if err != nil {
		t.Fatal(err)
	}
	return func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) { err = smcopt.Mark(int(fd), smcopt.TagOf(gid)) })
		return err
	}
}

func refused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := libsmc.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial: %v", err)
	}
}

func dialGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := libsmc.DialContext(ctx, "tcp", "127.0.0.1:1"); err == nil {
		t.Error("Dial whose context has ended")
	}
}

func neverAccepted(t *testing.T) {
	l, err := libsmc.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := libsmc.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read: %v", err)
	}
	c.Close()
}

// badServer announces SMC and sends this. It ends then, or the client does.
func badServer(t *testing.T, answer []byte, ends bool) {
	config := net.ListenConfig{Control: mark(t)}
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := libsmc.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if m := c.(*libsmc.Conn).Info().Mode; m != libsmc.Handshaking {
		t.Fatalf("mode %v", m)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Write(answer)
	switch {
	case ends:
		s.Close()
		fallthrough
	case answer != nil:
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		c.Read(make([]byte, 1))
	}
}

// badClient announces SMC, sends this, reads what there is for a moment and goes.
func badClient(t *testing.T, message []byte) {
	l, err := libsmc.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := acceptAll(l, func(c net.Conn) {
		if c.(*libsmc.Conn).Info().Mode == libsmc.SMCD {
			t.Error("it is an SMC-D connection")
		}
	})
	c, err := (&net.Dialer{Control: mark(t)}).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write(message)
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	c.Read(make([]byte, 1000))
	c.Close()
	time.Sleep(10 * time.Millisecond)
	l.Close()
	<-accepted
}
