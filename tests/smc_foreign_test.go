// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"context"
	"net"
	"net/rpc"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

var (
	mssOption    = []byte{2, 4, 5, 0xb4}
	kernelOption = []byte{1, 1, 254, 6, 0xE2, 0xD4, 0xC3, 0xD9}
)

func tagOf(d *device) smcopt.Tag {
	d.t.Helper()
	gid, err := smc.ParseGID(d.Read("gid"))
	if err != nil {
		d.t.Fatal(err)
	}
	return smcopt.TagOf(gid)
}

// TestForeignServers: whatever a server of another host or a middlebox puts into the SYN-ACK, the connection is plain when
// Dial returns, and its first byte is the program's.
func TestForeignServers(t *testing.T) {
	d := mountSMC(t)
	n := newNetns(t)
	client, f := n.startPeer(d.Point), newFakeHost(n)
	tag := tagOf(d)
	stranger := smcopt.Tag{9, 9, 9, 9, 9, 9, 9}
	for _, c := range []struct {
		name    string
		options func(syn segment) []byte
	}{
		{"no option", func(segment) []byte { return mssOption }},
		{"all options echoed", func(syn segment) []byte { return syn.options }},
		{"our option echoed", func(segment) []byte { return smcOption(smcopt.FromClient, tag) }},
		{"another host's answer", func(segment) []byte { return smcOption(smcopt.FromServer, stranger) }},
		{"an unknown direction", func(segment) []byte { return smcOption(3, tag) }},
		{"half an answer", func(segment) []byte { return append([]byte{254, 8}, smcOption(2, tag)[2:8]...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := d.handshakes()
			dial := later(func() (*peerConn, error) { return client.Dial(overSMC, "tcp", f.at.String()) })
			server := f.accept(func(syn segment) []byte {
				if got := syn.experimental(); !bytes.Equal(got, smcOption(smcopt.FromClient, tag)) {
					t.Errorf("the SYN has %x", got)
				}
				return c.options(syn)
			})
			a, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			if i := a.Info(); i.Mode != libsmc.TCP { // and the server has not said a word
				t.Errorf("dialled: %s", i)
			}
			wantTCP(a, smc.DeclPeerNoSMC, 0)
			mustWrite(a, []byte(question))
			server.wantNext(question)
			server.write(greeting)
			got, err := a.ReadFull(len(greeting))
			wantText(t, "the client read", got, err, greeting)
			if k := d.handshakes().since(before).ClientFallback[smc.DeclPeerNoSMC.String()]; k != 1 {
				t.Errorf("%d fallbacks counted, want 1", k)
			}
			server.reset()
			a.Close()
		})
	}
}

// TestKernelsOption: a SYN-ACK with the kernel's option is a promise to take a Proposal. The Decline that it has for a
// stranger's GID can come with the program's first bytes behind it.
func TestKernelsOption(t *testing.T) {
	d := mountSMC(t)
	n := newNetns(t)
	client, f := n.startPeer(d.Point), newFakeHost(n)
	golden := goldenMessages(t, "smcd1.pcap")[0]
	for _, more := range []string{"", greeting} {
		dial := later(func() (*peerConn, error) { return client.Dial(overSMC, "tcp", f.at.String()) })
		server := f.accept(func(segment) []byte { return append(kernelOption, mssOption...) })
		a, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if got := levelled(t, server.next(), golden); !bytes.Equal(got, golden) {
			t.Errorf("Proposal:\n%x\nwant\n%x", got, golden)
		}
		if i := a.Info(); i.Mode != libsmc.Handshaking {
			t.Errorf("before the Decline: %s", i)
		}
		server.write(string(kernelDecline(t, smc.DeclNoSMCD2Dev)) + more)
		wantTCP(a, smc.DeclPeerDecl, smc.DeclNoSMCD2Dev)
		got, err := a.ReadFull(len(more))
		wantText(t, "behind the Decline", got, err, more)
		mustWrite(a, []byte(question))
		server.wantNext(question)
		server.reset()
		a.Close()
	}
}

// TestForeignClients: a SYN of another host is not answered, whatever it has: the connection is accepted at once, plain, and
// either side may speak first.
func TestForeignClients(t *testing.T) {
	d := mountSMC(t)
	n := newNetns(t)
	server, f := n.startPeer(d.Point), newFakeHost(n)
	l := server.Listen(overSMC, "tcp", f.ours.String()+":0")
	for _, c := range []struct {
		name    string
		options []byte
	}{
		{"no option", mssOption},
		{"the kernel's", kernelOption},
		{"another host's", smcOption(smcopt.FromClient, smcopt.Tag{9, 9, 9, 9, 9, 9, 9})},
		{"a server's", smcOption(smcopt.FromServer, tagOf(d))},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := f.dial(l.Address, c.options, func(synack segment) {
				if got := synack.experimental(); len(got) != 0 {
					t.Errorf("the SYN-ACK has %x", got)
				}
			})
			b := l.MustAccept()
			if i := b.Info(); i.Mode != libsmc.TCP { // and the client has not said a word
				t.Errorf("accepted: %s", i)
			}
			wantTCP(b, smc.DeclPeerNoSMC, 0)
			mustWrite(b, []byte(greeting))
			client.wantNext(greeting)
			client.write(question)
			got, err := b.ReadFull(len(question))
			wantText(t, "the server read", got, err, question)
			client.reset()
			b.Close()
		})
	}
}

// TestSYNCookies: the server has forgotten the SYN when the connection stands, so the option is not in the SYN-ACK.
func TestSYNCookies(t *testing.T) {
	d := mountSMC(t)
	n := newNetns(t)
	client, server := n.startPeer(d.Point), n.startPeer(d.Point)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	for _, always := range []bool{false, true, false} {
		if n.sysctl("net.ipv4.tcp_syncookies", "1"); always {
			n.sysctl("net.ipv4.tcp_syncookies", "2")
		}
		a, b := connectTo(t, client, overSMC, l)
		if !always {
			wantWorking(d, a, b)
			continue
		}
		wantTCP(a, smc.DeclPeerNoSMC, 0)
		wantTCP(b, smc.DeclPeerNoSMC, 0)
		d.wantGrowth(0, func() { exchange(a, b, 300<<10) })
	}
}

// TestFastOpen: sockets with TCP Fast Open stay TCP, the first time, when there is no cookie yet, and with one, when the SYN
// waits for the first bytes.
func TestFastOpen(t *testing.T) {
	d := mountSMC(t)
	n := newNetns(t)
	n.sysctl("net.ipv4.tcp_fastopen", "3")
	client, server := n.startPeer(d.Point), n.startPeer(d.Point)
	l := server.listenWith(ForeignArgs{Address: "127.0.0.1:0", Level: unix.IPPROTO_TCP, Name: unix.TCP_FASTOPEN, Value: 16})
	for i := range 3 {
		capture := n.capture()
		r := client.foreign("Foreign.Dial", ForeignArgs{
			Address: l.Address, Level: unix.IPPROTO_TCP, Name: unix.TCP_FASTOPEN_CONNECT, Value: 1,
		})
		a := client.newConn(r)
		wrote := later(func() (int, error) { return a.Write([]byte(question)) })
		b := l.MustAccept()
		if k, err := wrote(); err != nil || k != len(question) {
			t.Errorf("connection %d: wrote %d, %v", i, k, err)
		}
		got, err := b.ReadFull(len(question))
		wantText(t, "the server read", got, err, question)
		say(t, b, greeting)
		hear(t, a, greeting)
		wantTCP(a, smc.DeclOptUnsupp, 0)
		wantTCP(b, smc.DeclPeerNoSMC, 0)
		opened := false
		for _, s := range capture.of(b.flipped()) {
			opened = opened || s.flags&flagSYN != 0 && len(s.payload) > 0
			if bytes.HasPrefix(s.payload, []byte{0xE2, 0xD4}) {
				t.Errorf("connection %d: CLC on the wire: %x", i, s.payload)
			}
		}
		if i > 0 && !opened {
			t.Errorf("connection %d: no data in the SYN: this tests nothing", i)
		}
		wantError(t, "Close", a.Close(), nil)
		wantError(t, "Close", b.Close(), nil)
	}
	a, b := connectTo(t, client, overSMC, l) // a client without it
	wantWorking(d, a, b)
}

// flipped is a connection's other end, for capture.of.
func (c *peerConn) flipped() *peerConn {
	return &peerConn{peer: c.peer, Local: c.Remote, Remote: c.Local}
}

// TestMPTCPListener: a mark on an MPTCP socket would land on none of its subflows, so it takes none.
func TestMPTCPListener(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.listenWith(ForeignArgs{Address: "127.0.0.1:0", MPTCP: true})
	for _, how := range []sockets{overSMC, plain} {
		a, b := connectTo(t, client, how, l)
		if how == overSMC {
			wantTCP(a, smc.DeclPeerNoSMC, 0)
		}
		wantTCP(b, smc.DeclNoSMCDev, 0)
		d.wantGrowth(0, func() { exchange(a, b, 300<<10) })
	}
}

// TestDeferAccept: the kernel shows the server a connection only when it has bytes. A Proposal is some.
func TestDeferAccept(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.listenWith(ForeignArgs{Address: "127.0.0.1:0", Level: unix.IPPROTO_TCP, Name: unix.TCP_DEFER_ACCEPT, Value: 5})
	for range 3 {
		a, b := connectTo(t, client, overSMC, l)
		wantWorking(d, a, b)
	}
	a := client.MustDial(plain, "tcp", l.Address)
	say(t, a, question)
	b := l.MustAccept()
	wantTCP(b, smc.DeclPeerNoSMC, 0)
	hear(t, b, question)
	say(t, b, greeting)
	hear(t, a, greeting)
}

// ForeignArgs are the arguments of the calls of Foreign.
type ForeignArgs struct {
	Address            string
	Level, Name, Value int  `json:",omitempty"` // of setsockopt; no Name: none
	MPTCP              bool `json:",omitempty"`
}

func (p *peer) foreign(method string, args ForeignArgs) PeerReply {
	p.t.Helper()
	var r PeerReply
	err := p.rpc.Call(method, args, &r)
	if err == nil && r.Err != nil {
		err = r.Err
	}
	if err != nil {
		p.t.Fatalf("%s %+v: %v", method, args, err)
	}
	return r
}

func (p *peer) listenWith(args ForeignArgs) *peerListener {
	p.t.Helper()
	r := p.foreign("Foreign.Listen", args)
	return &peerListener{p, r.ID, r.Local}
}

func init() { rpc.Register(Foreign{}) }

// Foreign are calls of a peer whose sockets are not as libsmc makes them by itself.
type Foreign struct{}

func (a *ForeignArgs) control(_, _ string, raw syscall.RawConn) (err error) {
	if a.Name != 0 {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), a.Level, a.Name, a.Value) })
	}
	return err
}

// Dial connects by libsmc, with a Control.
func (Foreign) Dial(a ForeignArgs, r *PeerReply) error {
	d := libsmc.Dialer{Dialer: net.Dialer{Control: a.control}}
	c, err := d.Dial("tcp", a.Address)
	if err == nil {
		keep(c, r)
	}
	return r.answer(err)
}

// Listen gives libsmc a listener that was made elsewhere.
func (Foreign) Listen(a ForeignArgs, r *PeerReply) error {
	config := net.ListenConfig{Control: a.control}
	config.SetMultipathTCP(a.MPTCP)
	l, err := config.Listen(context.Background(), "tcp", a.Address)
	if err == nil {
		keepListener(libsmc.NewListener(l.(*net.TCPListener)), r)
	}
	return r.answer(err)
}
