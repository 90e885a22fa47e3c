// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// The harness of the tests of SMC connections. A peer is a client (another process, see startClient) that has sockets: by
// libsmc, or plain ones. A test says call by call what each process does; a call that waits can be put into a goroutine by
// later.
//
//	d := mountSMC(t)                                                    // a device; skips where the SMC option cannot be had
//	client := startPeer(t, d.Point)                                     // ISMFS_MOUNT: a mount point, or "off"
//	server := startPeer(t, d.Point, asUser(1000), withEnv("SMC_RCVBUF=1m"))
//	a, b := connect(t, client, overSMC, server, overSMC)                // both settled
//	wantSMCD(d, a, b)                                                   // SMC-D on both ends, and it is one connection
//	d.wantGrowth(1<<20, func() { transfer(a, b, 1<<20) })               // checksummed; xfer_bytes grew by exactly that
//	wantTCP(a, smc.DeclPeerDecl, smc.DeclNoSMCD2Dev)                    // fallback reason, peer diagnosis
//	wantError(t, "Read", err, io.EOF)                                   // errors.Is holds across processes
//
// Every test of SMC asserts both: a silent fallback must fail it. The child's half is smc_peer_test.go; a test file that needs
// other calls in the child registers a receiver of its own with rpc.Register in an init function, and finds the sockets by
// connOf and listenerOf.

// sockets says whose sockets a peer uses.
type sockets string

const (
	overSMC sockets = "libsmc"
	plain   sockets = "net"
	marked  sockets = "net, marked" // announces SMC, and then sends and reads what the test says: for CLC by hand
)

// callPatience is how long a call may take that does not say otherwise. It is a limit for broken code.
const callPatience = time.Minute

// mountSMC mounts a device for whose clients the SMC option is attached.
func mountSMC(t *testing.T, args ...string) *device {
	t.Helper()
	d := mountDevice(t, args...)
	needOption(t, d)
	return d
}

// needOption skips a test on a machine without the SMC option, but not in CI.
func needOption(t *testing.T, d *device) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	gid, err := smc.ParseGID(d.Read("gid"))
	if err != nil {
		t.Fatal(err)
	}
	switch err := smcopt.Mark(fd, smcopt.TagOf(gid)); {
	case err == nil:
	case errors.Is(err, smcopt.ErrNoPrograms) && os.Getenv("CI") == "":
		t.Skip(err)
	default:
		t.Fatalf("the SMC option: %v\n%s", err, d.log)
	}
}

type peer struct{ *client }

// startPeer starts a process whose ISMFS_MOUNT is point; "off" is none. Its rings are of the kernel's size, unless change says
// otherwise.
func startPeer(t *testing.T, point string, change ...func(*exec.Cmd)) *peer {
	t.Helper()
	return &peer{startClient(t, append([]func(*exec.Cmd){withEnv("ISMFS_MOUNT="+point, "SMC_RCVBUF=64k")}, change...)...)}
}

// withEnv adds to a client's environment.
func withEnv(variables ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, variables...) }
}

// do makes one call. A call that never returns shows what the child's goroutines do, and fails the test.
func (p *peer) do(method string, args PeerArgs) (PeerReply, error) {
	return p.doWithin(callPatience, method, args)
}

func (p *peer) doWithin(limit time.Duration, method string, args PeerArgs) (PeerReply, error) {
	var reply PeerReply
	call := p.rpc.Go(method, args, &reply, nil)
	select {
	case <-call.Done:
	case <-time.After(limit):
		p.cmd.Process.Signal(syscall.SIGQUIT)
		<-call.Done
		return reply, fmt.Errorf("%s took more than %v: %w", method, limit, call.Error)
	}
	if call.Error != nil {
		return reply, fmt.Errorf("peer: %s: %w", method, call.Error)
	}
	if reply.Err != nil {
		return reply, reply.Err
	}
	return reply, nil
}

func (p *peer) mustDo(method string, args PeerArgs) PeerReply {
	p.t.Helper()
	r, err := p.do(method, args)
	if err != nil {
		p.t.Fatalf("%s %+v: %v", method, args, err)
	}
	return r
}

// later makes a call in a goroutine; the function that it returns waits for it.
func later[T any](call func() (T, error)) func() (T, error) {
	type answer struct {
		v   T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := call()
		done <- answer{v, err}
	}()
	return func() (T, error) {
		a := <-done
		return a.v, a.err
	}
}

type peerListener struct {
	*peer
	ID      int
	Address string
}

// Listen listens; address 127.0.0.1:0 and the like take a free port.
func (p *peer) Listen(s sockets, network, address string) *peerListener {
	p.t.Helper()
	r := p.mustDo("Sockets.Listen", PeerArgs{Sockets: s, Network: network, Address: address})
	return &peerListener{p, r.ID, r.Local}
}

// Accept waits for a connection.
func (l *peerListener) Accept() (*peerConn, error) {
	r, err := l.do("Sockets.Accept", PeerArgs{ID: l.ID})
	return l.newConn(r), err
}

// MustAccept is Accept for calls that have to succeed.
func (l *peerListener) MustAccept() *peerConn {
	l.t.Helper()
	c, err := l.Accept()
	if err != nil {
		l.t.Fatalf("accept on %s: %v", l.Address, err)
	}
	return c
}

// Echo serves connections in the background: what they send comes back, until they end. It ends with the listener.
func (l *peerListener) Echo() {
	l.t.Helper()
	l.mustDo("Sockets.Echo", PeerArgs{ID: l.ID})
}

func (l *peerListener) Close() error {
	_, err := l.do("Sockets.CloseListener", PeerArgs{ID: l.ID})
	return err
}

type peerConn struct {
	*peer
	ID            int
	Local, Remote string
}

func (p *peer) newConn(r PeerReply) *peerConn { return &peerConn{p, r.ID, r.Local, r.Remote} }

// Dial connects. By libsmc it returns before the handshake is settled.
func (p *peer) Dial(s sockets, network, address string) (*peerConn, error) {
	r, err := p.do("Sockets.Dial", PeerArgs{Sockets: s, Network: network, Address: address})
	return p.newConn(r), err
}

// MustDial is Dial for calls that have to succeed.
func (p *peer) MustDial(s sockets, network, address string) *peerConn {
	p.t.Helper()
	c, err := p.Dial(s, network, address)
	if err != nil {
		p.t.Fatalf("dial %s: %v", address, err)
	}
	return c
}

// CloseIdle is libsmc.CloseIdle.
func (p *peer) CloseIdle() { p.mustDo("Sockets.CloseIdle", PeerArgs{}) }

// Held is what the process has of the things that can leak.
func (p *peer) Held() Held { return p.mustDo("Sockets.Held", PeerArgs{}).Held }

// Handshake waits until it is settled what carries the connection.
func (c *peerConn) Handshake(timeout time.Duration) error {
	_, err := c.do("Sockets.Handshake", PeerArgs{ID: c.ID, Timeout: timeout})
	return err
}

// Info is libsmc's Info, without waiting. A plain connection has Plain set, and Mode TCP.
func (c *peerConn) Info() PeerInfo {
	c.t.Helper()
	return c.mustDo("Sockets.Info", PeerArgs{ID: c.ID}).Info
}

// Write writes bytes and returns how many were written.
func (c *peerConn) Write(data []byte) (int, error) {
	r, err := c.do("Sockets.Write", PeerArgs{ID: c.ID, Data: data})
	return int(r.N), err
}

// Read reads once.
func (c *peerConn) Read(n int) ([]byte, error) {
	r, err := c.do("Sockets.Read", PeerArgs{ID: c.ID, N: int64(n)})
	return r.Data, err
}

// ReadFull reads n bytes, ReadAll what there is before the end.
func (c *peerConn) ReadFull(n int) ([]byte, error) {
	r, err := c.do("Sockets.ReadFull", PeerArgs{ID: c.ID, N: int64(n)})
	return r.Data, err
}

func (c *peerConn) ReadAll() ([]byte, error) {
	r, err := c.do("Sockets.ReadAll", PeerArgs{ID: c.ID})
	return r.Data, err
}

// Send writes n bytes that follow from seed, in writes of random sizes up to chunk, and returns their checksum.
func (c *peerConn) Send(seed uint64, n int64, chunk int) (string, error) {
	r, err := c.do("Sockets.Send", PeerArgs{ID: c.ID, Seed: seed, N: n, Chunk: chunk})
	return r.Sum, err
}

// Receive reads n bytes in reads of random sizes up to chunk and returns their checksum.
func (c *peerConn) Receive(seed uint64, n int64, chunk int) (string, error) {
	r, err := c.do("Sockets.Receive", PeerArgs{ID: c.ID, Seed: seed, N: n, Chunk: chunk})
	return r.Sum, err
}

func (c *peerConn) simple(method string, args PeerArgs) error {
	args.ID = c.ID
	_, err := c.do(method, args)
	return err
}

func (c *peerConn) Close() error      { return c.simple("Sockets.Close", PeerArgs{}) }
func (c *peerConn) CloseRead() error  { return c.simple("Sockets.CloseRead", PeerArgs{}) }
func (c *peerConn) CloseWrite() error { return c.simple("Sockets.CloseWrite", PeerArgs{}) }
func (c *peerConn) SetLinger(sec int) error {
	return c.simple("Sockets.SetLinger", PeerArgs{N: int64(sec)})
}

// SetDeadline, SetReadDeadline and SetWriteDeadline take a time from now, negative for the past, 0 for none.
func (c *peerConn) SetDeadline(d time.Duration) error {
	return c.simple("Sockets.SetDeadline", PeerArgs{Timeout: d, Network: "rw"})
}
func (c *peerConn) SetReadDeadline(d time.Duration) error {
	return c.simple("Sockets.SetDeadline", PeerArgs{Timeout: d, Network: "r"})
}
func (c *peerConn) SetWriteDeadline(d time.Duration) error {
	return c.simple("Sockets.SetDeadline", PeerArgs{Timeout: d, Network: "w"})
}

// connect connects two peers and settles the handshake at both ends.
func connect(t *testing.T, client *peer, how sockets, server *peer, served sockets) (a, b *peerConn) {
	t.Helper()
	l := server.Listen(served, "tcp", "127.0.0.1:0")
	defer l.Close()
	return connectTo(t, client, how, l)
}

// connectTo connects a peer to a listener that nobody else connects to meanwhile.
func connectTo(t *testing.T, client *peer, how sockets, l *peerListener) (a, b *peerConn) {
	t.Helper()
	a = client.MustDial(how, "tcp", l.Address)
	b = l.MustAccept()
	if a.Local != b.Remote {
		t.Fatalf("accepted %s, dialled from %s", b.Remote, a.Local)
	}
	if err := a.Handshake(0); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return a, b
}

// seeds gives every transfer bytes of its own.
var seeds atomic.Uint64

// transfer moves n bytes from one end to the other and compares the checksums.
func transfer(from, to *peerConn, n int64) {
	from.t.Helper()
	if err := transferChunks(from, to, n, 64<<10); err != nil {
		from.t.Fatal(err)
	}
}

func transferChunks(from, to *peerConn, n int64, chunk int) error {
	seed := seeds.Add(1)
	sent := later(func() (string, error) { return from.Send(seed, n, chunk) })
	got, errRead := to.Receive(seed+1<<32, n, chunk)
	want, errWrite := sent()
	switch {
	case errRead != nil || errWrite != nil:
		return fmt.Errorf("transfer of %d bytes: %w", n, errors.Join(errWrite, errRead))
	case got != want:
		return fmt.Errorf("transfer of %d bytes: received the checksum %s, sent %s", n, got, want)
	}
	return nil
}

// exchange moves n bytes each way at once.
func exchange(a, b *peerConn, n int64) {
	a.t.Helper()
	back := later(func() (int, error) { return 0, transferChunks(b, a, n, 64<<10) })
	err := transferChunks(a, b, n, 64<<10)
	if _, errBack := back(); err != nil || errBack != nil {
		a.t.Fatal(errors.Join(err, errBack))
	}
}

// wantGrowth fails the test unless xfer_bytes grows by exactly n while f runs.
func (d *device) wantGrowth(n int64, f func()) {
	d.t.Helper()
	before := d.xferBytes()
	f()
	if grown := d.xferBytes() - before; grown != n {
		d.t.Errorf("xfer_bytes grew by %d, want %d", grown, n)
	}
}

func (d *device) xferBytes() (n int64) {
	d.t.Helper()
	if _, err := fmt.Sscan(d.Read("xfer_bytes"), &n); err != nil {
		d.t.Fatal(err)
	}
	return n
}

// wantSMCD fails the test unless a and b are the two ends of one SMC-D connection on the device, a the client's.
func wantSMCD(d *device, a, b *peerConn) {
	d.t.Helper()
	if err := checkSMCD(d.Read("gid"), a.Info(), b.Info()); err != nil {
		d.t.Fatal(err)
	}
}

func checkSMCD(gid string, i, k PeerInfo) error {
	switch {
	case i.Mode != libsmc.SMCD || k.Mode != libsmc.SMCD:
		return fmt.Errorf("not SMC-D on both ends: %s; %s", i, k)
	case !i.Client || k.Client:
		return fmt.Errorf("roles: client is %v and %v", i.Client, k.Client)
	case i.Token == 0 || k.Token == 0 || i.Token != k.PeerToken || k.Token != i.PeerToken:
		return fmt.Errorf("tokens: %v with %v, and %v with %v", i.Token, i.PeerToken, k.Token, k.PeerToken)
	case i.GID.String() != gid || k.GID.String() != gid:
		return fmt.Errorf("GIDs %v and %v, not %v", i.GID, k.GID, gid)
	case i.EID != k.EID || i.LinkGroup == 0 || k.LinkGroup == 0 || i.PeerProcess == 0 || k.PeerProcess == 0:
		return fmt.Errorf("EIDs %v, %v, link groups %x, %x, processes %d, %d",
			i.EID, k.EID, i.LinkGroup, k.LinkGroup, i.PeerProcess, k.PeerProcess)
	case i.ReadBuffer != k.WriteBuffer || k.ReadBuffer != i.WriteBuffer:
		return fmt.Errorf("buffers: reads %d, %d, writes %d, %d", i.ReadBuffer, k.ReadBuffer, i.WriteBuffer, k.WriteBuffer)
	case i.Reason != 0 || k.Reason != 0 || i.PeerDiagnosis != 0 || k.PeerDiagnosis != 0:
		return fmt.Errorf("reasons of SMC-D connections: %s; %s", i, k)
	}
	return nil
}

// wantTCP fails the test unless a connection has fallen back for this reason, with this diagnosis by the peer.
func wantTCP(c *peerConn, reason, diagnosis smc.DeclineCode) {
	c.t.Helper()
	if err := c.Handshake(0); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	if i := c.Info(); i.Mode != libsmc.TCP || i.Reason != reason || i.PeerDiagnosis != diagnosis {
		c.t.Errorf("%s; want TCP with reason %v, peer diagnosis %v", i, reason, diagnosis)
	}
}

// wantError fails the test unless err is want, by errors.Is; nil is none.
func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// wantText fails the test unless these bytes were read.
func wantText(t *testing.T, what string, got []byte, err error, want string) {
	t.Helper()
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, %v, want %q", what, got, err, want)
	}
}

// onAddress returns an address with another host.
func onAddress(host, address string) string {
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort(host, port)
}
