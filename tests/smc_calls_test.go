// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// A moment is long enough for a call to have begun to wait. A test must pass, too, where it was too short.
const moment = 50 * time.Millisecond

// smcPair mounts a device and starts a client and a server on it.
func smcPair(t *testing.T, args ...string) (d *device, client, server *peer) {
	t.Helper()
	d = mountSMC(t, args...)
	return d, startPeer(t, d.Point), startPeer(t, d.Point)
}

func TestDeadlinesBeforeHandshake(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a := client.MustDial(overSMC, "tcp", l.Address)
	if i := a.Info(); i.Mode != libsmc.Handshaking {
		t.Fatalf("dialled: %s", i)
	}
	wantError(t, "SetReadDeadline", a.SetReadDeadline(moment), nil)
	_, err := a.Read(1)
	wantError(t, "Read after a deadline", err, os.ErrDeadlineExceeded)
	wantError(t, "SetWriteDeadline", a.SetWriteDeadline(-time.Second), nil)
	_, err = a.Write([]byte("x"))
	wantError(t, "Write after a deadline", err, os.ErrDeadlineExceeded)

	// A deadline reaches who waits already; taking it back makes no noise.
	wantError(t, "SetReadDeadline", a.SetReadDeadline(0), nil)
	read := later(func() ([]byte, error) { return a.Read(1) })
	time.Sleep(moment)
	wantError(t, "SetReadDeadline", a.SetReadDeadline(time.Hour), nil)
	wantError(t, "SetReadDeadline", a.SetReadDeadline(-1), nil)
	_, err = read()
	wantError(t, "the waiting Read", err, os.ErrDeadlineExceeded)

	// The deadlines go on after the handshake.
	b := l.MustAccept()
	wantError(t, "handshake", a.Handshake(0), nil)
	wantSMCD(d, a, b)
	_, err = a.Read(1)
	wantError(t, "Read of the settled connection", err, os.ErrDeadlineExceeded)
	_, err = a.Write([]byte("x"))
	wantError(t, "Write to the settled connection", err, os.ErrDeadlineExceeded)
	wantError(t, "SetDeadline", a.SetDeadline(0), nil)
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
}

func TestDeadlinesAfterHandshake(t *testing.T) {
	d, client, server := smcPair(t)
	a, b := connect(t, client, overSMC, server, overSMC)
	wantSMCD(d, a, b)
	wantError(t, "SetReadDeadline", a.SetReadDeadline(moment), nil)
	_, err := a.Read(1)
	wantError(t, "Read", err, os.ErrDeadlineExceeded)
	data := make([]byte, 200<<10)
	room := int64(a.Info().WriteBuffer)
	d.wantGrowth(int64(len(data)), func() {
		wantError(t, "SetWriteDeadline", a.SetWriteDeadline(20*moment), nil) // the order to write takes a while, too
		n, err := a.Write(data)
		wantError(t, "Write into a full ring", err, os.ErrDeadlineExceeded)
		if int64(n) != room {
			t.Errorf("wrote %d bytes into a ring of %d", n, room)
		}
		got := later(func() ([]byte, error) { return b.ReadFull(len(data)) })
		wantError(t, "SetWriteDeadline", a.SetWriteDeadline(0), nil)
		if _, err := a.Write(data[n:]); err != nil {
			t.Error(err)
		}
		if _, err := got(); err != nil {
			t.Error(err)
		}
	})
}

func TestHandshakeContext(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a := client.MustDial(overSMC, "tcp", l.Address)
	wantError(t, "Handshake", a.Handshake(moment), context.DeadlineExceeded)
	b := l.MustAccept() // it has gone on
	wantError(t, "Handshake", a.Handshake(0), nil)
	wantSMCD(d, a, b)
	d.wantGrowth(2000, func() { exchange(a, b, 1000) })
}

// TestCloseDuringHandshake: whoever waits hears of it, the other end gets no connection, and the next one is well.
func TestCloseDuringHandshake(t *testing.T) {
	d, client, server := smcPair(t)
	t.Run("client", func(t *testing.T) {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		a := client.MustDial(overSMC, "tcp", l.Address)
		read := later(func() ([]byte, error) { return a.Read(1) })
		time.Sleep(moment)
		wantError(t, "Close", a.Close(), nil)
		_, err := read()
		wantError(t, "the waiting Read", err, net.ErrClosed)
		_, err = a.Write([]byte("x"))
		wantError(t, "Write", err, net.ErrClosed)
		wantError(t, "a second Close", a.Close(), net.ErrClosed)
		a, b := connectTo(t, client, overSMC, l) // what comes out of the queue first is dead
		wantSMCD(d, a, b)
		d.wantGrowth(2000, func() { exchange(a, b, 1000) })
	})
	t.Run("listener", func(t *testing.T) {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		queued := client.MustDial(overSMC, "tcp", l.Address)
		wantError(t, "Close", l.Close(), nil)
		_, err := queued.Read(1)
		wantError(t, "Read of a connection that nobody accepted", err, syscall.ECONNRESET)

		l = server.Listen(overSMC, "tcp", "127.0.0.1:0")
		begun := client.MustDial(marked, "tcp", l.Address)
		accept := later(l.Accept)
		waitFor(t, "the server to have the connection", func() error {
			if n := countConns(server, begun.Local); n == 0 {
				return errors.New("it is in the queue")
			}
			return nil
		})
		wantError(t, "Close", l.Close(), nil)
		_, err = accept()
		wantError(t, "the waiting Accept", err, net.ErrClosed)
		_, err = begun.Read(1)
		wantError(t, "Read of a connection in its handshake", err, syscall.ECONNRESET)
	})
}

// countConns counts a process's connected sockets to an address.
func countConns(p *peer, remote string) int {
	r, err := p.do("Extras.CountConns", PeerArgs{Address: remote})
	if err != nil {
		p.t.Fatal(err)
	}
	return int(r.N)
}

// TestOneGoroutine: listen, dial and accept in one goroutine, also with one processor.
func TestOneGoroutine(t *testing.T) {
	d := mountSMC(t)
	for _, processors := range []string{"GOMAXPROCS=1", "GOMAXPROCS=2"} {
		t.Run(processors, func(t *testing.T) {
			p := startPeer(t, d.Point, withEnv(processors))
			l := p.Listen(overSMC, "tcp", "127.0.0.1:0")
			r := p.mustDo("Extras.OneGoroutine", PeerArgs{ID: l.ID, Address: l.Address})
			a, b := &peerConn{peer: p, ID: r.ID}, &peerConn{peer: p, ID: int(r.N)}
			wantSMCD(d, a, b) // a process may be its own peer
			d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
		})
	}
}

// TestLateAccept: a server that accepts late finds what the client has to say, and the client has waited.
func TestLateAccept(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a := client.MustDial(overSMC, "tcp", l.Address)
	d.wantGrowth(1<<20, func() {
		sent := later(func() (string, error) { return a.Send(1, 1<<20, 4096) })
		time.Sleep(2 * time.Second)
		b := l.MustAccept()
		got, err := b.Receive(1, 1<<20, 4096)
		want, errSend := sent()
		if err != nil || errSend != nil || got != want {
			t.Errorf("sent %s, %v, received %s, %v", want, errSend, got, err)
		}
		wantSMCD(d, a, b)
	})
}

// withListener gives a client a listening socket as descriptor 3.
func withListener(f *os.File) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.ExtraFiles = append(cmd.ExtraFiles, f) }
}

func (p *peer) inheritedListener(s sockets) *peerListener {
	p.t.Helper()
	r := p.mustDo("Extras.Inherited", PeerArgs{Sockets: s})
	return &peerListener{p, r.ID, r.Local}
}

// TestSharedListener: of two processes with one listening socket only who waits in Accept gets connections.
func TestSharedListener(t *testing.T) {
	d := mountSMC(t)
	client := startPeer(t, d.Point)
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	socket, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	one, other := startPeer(t, d.Point, withListener(file)), startPeer(t, d.Point, withListener(file))
	file.Close()
	socket.Close()
	here, there := one.inheritedListener(overSMC), other.inheritedListener(overSMC)
	for _, l := range []*peerListener{here, here, there, here, there, there} {
		a, b := connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		d.wantGrowth(2000, func() { exchange(a, b, 1000) })
	}
	// Both wait, and each connection goes to one of them.
	const n = 20
	accepted := make(chan *peerConn, n)
	for _, l := range []*peerListener{here, there} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
	}
	dialled := make(map[string]*peerConn)
	for range n {
		c := client.MustDial(overSMC, "tcp", here.Address)
		dialled[c.Local] = c
	}
	for range n {
		b := <-accepted
		a := dialled[b.Remote]
		wantError(t, "handshake", a.Handshake(0), nil)
		wantSMCD(d, a, b)
		delete(dialled, b.Remote)
	}
	// A process that leaves takes no connection with it.
	wantError(t, "Close", here.Close(), nil)
	a := client.MustDial(overSMC, "tcp", there.Address)
	b := <-accepted
	wantError(t, "handshake", a.Handshake(0), nil)
	wantSMCD(d, a, b)
	there.Close()
}

// takeDescriptor returns a copy of another process's descriptor.
func takeDescriptor(t *testing.T, p *peer, fd int) *os.File {
	t.Helper()
	pidfd, err := unix.PidfdOpen(p.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	copied, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(copied), "taken")
}

// TestListenerFile: a plain process that gets a listener's socket need not know of SMC. What was promised before is kept.
func TestListenerFile(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	promised := []*peerConn{client.MustDial(overSMC, "tcp", l.Address), client.MustDial(overSMC, "tcp", l.Address)}
	r := server.mustDo("Extras.ListenerFile", PeerArgs{ID: l.ID})
	file := takeDescriptor(t, server, int(r.N))
	handed := startPeer(t, "off", withListener(file)).inheritedListener(plain)
	file.Close()

	a := client.MustDial(overSMC, "tcp", l.Address)
	wantTCP(a, smc.DeclPeerNoSMC, 0)
	b := handed.MustAccept()
	say(t, a, question)
	hear(t, b, question) // and not a byte of CLC before it
	say(t, b, greeting)
	hear(t, a, greeting)

	for range promised {
		b := l.MustAccept()
		for _, a := range promised {
			if a.Local == b.Remote {
				wantError(t, "handshake", a.Handshake(0), nil)
				wantSMCD(d, a, b)
				d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
			}
		}
	}
}

// TestSilentClients: clients that announce SMC and then say nothing delay nobody. After six seconds they are late, and the server ends those that
// are too many.
func TestSilentClients(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	const most, n = 256, 256 + 20 // mostLate in libsmc
	var silent []*peerConn
	for range n {
		silent = append(silent, client.MustDial(marked, "tcp", l.Address))
	}
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	if h := d.handshakes(); h.ServerErrors != 0 {
		t.Errorf("before the end of the silent: %+v", h)
	}
	d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
	waitFor(t, "the end of the silent", func() error {
		if h := d.handshakes(); h.ServerErrors < n-most {
			return fmt.Errorf("counted %+v", h)
		}
		return nil
	})
	var ended atomic.Int64
	inParallel(t, n, n, func(i int) error {
		if err := silent[i].SetReadDeadline(time.Second); err != nil {
			return err
		}
		_, err := silent[i].Read(1)
		switch {
		case errors.Is(err, syscall.ECONNRESET):
			ended.Add(1)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("Read of a silent client: %w", err)
		}
		return nil
	})
	if h := d.handshakes(); ended.Load() != n-most || h.ServerErrors != n-most || len(h.ServerFallback) != 0 {
		t.Errorf("%d have ended, counted %+v, want %d errors", ended.Load(), h, n-most)
	}
	a, b = connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	wantError(t, "Close", l.Close(), nil)
	if h := d.handshakes(); h.ServerErrors != n {
		t.Errorf("after Close counted %+v, want %d errors", h, n)
	}
}

// TestSilentServer: a server that announces SMC and says nothing keeps its client waiting until the client has enough.
func TestSilentServer(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(marked, "tcp", "127.0.0.1:0")
	a := client.MustDial(overSMC, "tcp", l.Address)
	b := l.MustAccept()
	wantError(t, "SetReadDeadline", a.SetReadDeadline(moment), nil)
	_, err := a.Read(1)
	wantError(t, "Read", err, os.ErrDeadlineExceeded)
	wantError(t, "Close", b.Close(), nil) // with the Proposal unread: a reset
	wantError(t, "SetReadDeadline", a.SetReadDeadline(0), nil)
	_, err = a.Read(1)
	wantError(t, "Read after the server's end", err, syscall.ECONNRESET)
	if h := d.handshakes(); h.ClientErrors != 1 {
		t.Errorf("counted %+v, want one error of a client", h)
	}

	a = client.MustDial(overSMC, "tcp", l.Address)
	b = l.MustAccept()
	if _, err := b.ReadFull(192 + smc.EIDLen); err != nil { // the Proposal, with one EID
		t.Fatal(err)
	}
	wantError(t, "CloseWrite", b.CloseWrite(), nil)
	_, err = a.Read(1)
	if errors.Is(err, io.EOF) {
		t.Error("the end of the handshake looks like the end of a connection")
	}
	wantError(t, "Read after the server's FIN", err, syscall.ECONNRESET)
}
