// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// moved returns what was written to a connection at both ends.
func moved(a, b *peerConn) int64 {
	i, k := a.Info(), b.Info()
	if i.BytesWritten != k.BytesRead || k.BytesWritten != i.BytesRead {
		a.t.Errorf("written %d and %d, read %d and %d", i.BytesWritten, k.BytesWritten, k.BytesRead, i.BytesRead)
	}
	return int64(i.BytesWritten + k.BytesWritten)
}

func TestTLS(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		before := d.xferBytes()
		server.mustDo("Apps.ServeTLS", PeerArgs{ID: b.ID})
		client.mustDo("Apps.TalkTLS", PeerArgs{ID: a.ID, N: 1 << 20})
		if n, grown := moved(a, b), d.xferBytes()-before; n != grown || n < 2<<20 {
			t.Errorf("%d bytes were written, xfer_bytes grew by %d", n, grown)
		}
	})
}

// TestHTTP: http.Server and http.Transport, several connections at once, which are used again.
func TestHTTP(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		server.mustDo("Apps.ServeHTTP", PeerArgs{ID: l.ID})
		before := d.xferBytes()
		r := client.mustDo("Apps.GetHTTP", PeerArgs{Address: l.Address, N: 200})
		if len(r.IDs) == 0 || len(r.IDs) > 10 {
			t.Errorf("%d connections for 200 requests", len(r.IDs))
		}
		ends := make(map[string]*peerConn) // the server's, by the client's address
		for _, id := range server.mustDo("Apps.Kept", PeerArgs{}).IDs {
			b := &peerConn{peer: server, ID: id}
			b.Remote = server.mustDo("Apps.Addresses", PeerArgs{ID: id}).Remote
			ends[b.Remote] = b
		}
		total := int64(0)
		for _, id := range r.IDs {
			a := &peerConn{peer: client, ID: id}
			b := ends[client.mustDo("Apps.Addresses", PeerArgs{ID: id}).Local]
			if b == nil {
				t.Fatal("the server does not know a connection")
			}
			wantSMCD(d, a, b)
			total += moved(a, b)
		}
		if grown := d.xferBytes() - before; grown != total || total < r.N {
			t.Errorf("%d bytes were written, xfer_bytes grew by %d, bodies had %d", total, grown, r.N)
		}
	})
}

// TestNames: host names and both families, as net has them.
func TestNames(t *testing.T) {
	d, client, server := smcPair(t)
	for _, row := range []struct{ listen, address, dial, host string }{
		{"tcp", "127.0.0.1:0", "tcp", "localhost"},
		{"tcp", "127.0.0.1:0", "tcp4", "localhost"},
		{"tcp4", "localhost:0", "tcp", "localhost"},
		{"tcp4", ":0", "tcp4", "127.0.0.1"},
		{"tcp", "[::1]:0", "tcp", "::1"},
		{"tcp6", "[::1]:0", "tcp6", "::1"},
		{"tcp", ":0", "tcp6", "::1"},
		{"tcp", ":0", "tcp4", "127.0.0.1"},
		{"tcp", ":0", "tcp", "::ffff:127.0.0.1"},
		{"tcp", ":0", "tcp", ""},
		{"tcp", ":0", "tcp", "localhost"},
	} {
		t.Run(row.listen+" "+row.address+" "+row.dial+" "+row.host, func(t *testing.T) {
			if strings.Contains(row.address+row.host, "::1") {
				needIPv6(t)
			}
			l := server.Listen(overSMC, row.listen, row.address)
			defer l.Close()
			a := client.MustDial(overSMC, row.dial, onAddress(row.host, l.Address))
			b := l.MustAccept()
			wantError(t, "handshake", a.Handshake(0), nil)
			wantSMCD(d, a, b)
			d.wantGrowth(2000, func() { exchange(a, b, 1000) })
		})
	}
	for network, address := range map[string]string{"udp": "127.0.0.1:1", "unix": "/x", "tcp5": "127.0.0.1:1"} {
		if c, err := client.Dial(overSMC, network, address); err == nil {
			t.Errorf("dialled %s: %+v", network, c)
		}
	}
	l := server.Listen(plain, "tcp", "127.0.0.1:0")
	wantError(t, "Close", l.Close(), nil)
	_, err := client.Dial(overSMC, "tcp", l.Address)
	wantError(t, "Dial where nobody listens", err, syscall.ECONNREFUSED)
}

func hasIPv6() bool {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil
}

// TestDialerFields: the fields of net.Dialer and net.ListenConfig have their meaning.
func TestDialerFields(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	for _, fields := range []string{"Control", "ControlContext", "KeepAlive", "LocalAddr"} {
		r, err := client.do("Apps.DialWith", PeerArgs{Network: fields, Address: l.Address})
		if err != nil {
			t.Errorf("%s: %v", fields, err)
			continue
		}
		if r.N != 1 {
			t.Errorf("%s was used %d times", fields, r.N)
		}
		a, b := client.newConn(r), l.MustAccept()
		wantError(t, "handshake", a.Handshake(0), nil)
		wantSMCD(d, a, b)
		d.wantGrowth(2000, func() { exchange(a, b, 1000) })
	}
	for _, fields := range []string{"Control", "ControlContext"} {
		_, err := client.do("Apps.DialWith", PeerArgs{Network: fields, Address: l.Address, N: 1})
		wantError(t, "Dial whose "+fields+" refuses", err, syscall.EPERM)
	}
	_, err := client.do("Apps.DialWith", PeerArgs{Network: "Timeout", Address: l.Address})
	wantError(t, "Dial after its deadline", err, context.DeadlineExceeded)
	r := server.mustDo("Apps.ListenWith", PeerArgs{})
	if r.N != 1 {
		t.Errorf("ListenConfig.Control was called %d times", r.N)
	}
	a, b := connectTo(t, client, overSMC, &peerListener{server, r.ID, r.Local})
	wantSMCD(d, a, b)
	d.wantGrowth(2000, func() { exchange(a, b, 1000) })

	// What was set before the handshake holds for the TCP connection that it may become.
	p := server.Listen(plain, "tcp", "127.0.0.1:0")
	c := client.newConn(client.mustDo("Apps.DialWith", PeerArgs{Network: "KeepAlive", Address: p.Address}))
	wantTCP(c, smc.DeclPeerNoSMC, 0)
	if n := client.mustDo("Apps.KeepIdle", PeerArgs{ID: c.ID}).N; n != 77 {
		t.Errorf("TCP_KEEPIDLE is %d, want 77", n)
	}
}

// TestReadFromWriteTo in SMC-D mode and on TCP, from and to files.
func TestReadFromWriteTo(t *testing.T) {
	const size = 3<<20 + 77
	from := filepath.Join(tempDir(t), "from")
	if err := os.WriteFile(from, []byte(strings.Repeat("0123456789abcde\n", size/16+1)[:size]), 0o644); err != nil {
		t.Fatal(err)
	}
	copied := func(t *testing.T, a, b *peerConn) {
		t.Helper()
		to := filepath.Join(tempDir(t), "to")
		wrote := later(func() (PeerReply, error) {
			return b.do("Apps.WriteTo", PeerArgs{ID: b.ID, Address: to})
		})
		r, err := a.do("Apps.ReadFrom", PeerArgs{ID: a.ID, Address: from})
		if err != nil || r.N != size {
			t.Errorf("ReadFrom: %d, %v", r.N, err)
		}
		r, err = wrote()
		if err != nil || r.N != size {
			t.Errorf("WriteTo: %d, %v", r.N, err)
		}
		have, err := os.ReadFile(to)
		want, errWant := os.ReadFile(from)
		if err != nil || errWant != nil || string(have) != string(want) {
			t.Errorf("the copy is %d bytes and not the same, %v, %v", len(have), err, errWant)
		}
	}
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		d.wantGrowth(size, func() { copied(t, a, b) })
		if n := d.Stats().SMCD["SMC_TX_BYTES"]; n != size {
			t.Errorf("SMC_TX_BYTES is %d", n)
		}
	})
	t.Run("TCP", func(t *testing.T) {
		d, client, server := smcPair(t)
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		p := server.Listen(plain, "tcp", "127.0.0.1:0")
		a, b := connectTo(t, client, overSMC, p)
		wantTCP(a, smc.DeclPeerNoSMC, 0)
		d.wantGrowth(0, func() { copied(t, a, b) })
		a, b = connectTo(t, client, plain, l)
		wantTCP(b, smc.DeclPeerNoSMC, 0)
		d.wantGrowth(0, func() { copied(t, a, b) })
	})
}

// TestDescriptors: a TCP connection has its descriptor; that of an SMC-D connection can be looked at, and says why no more.
func TestDescriptors(t *testing.T) {
	d, client, server := smcPair(t)
	a, b := pairIn(t, d, client, server)
	for _, c := range []*peerConn{a, b} {
		if r := c.mustDo("Apps.Descriptor", PeerArgs{ID: c.ID, Network: "look"}); r.N != 1 {
			t.Error("a look at the idle TCP connection finds something")
		}
		for _, what := range []string{"read", "write", "File"} {
			_, err := c.do("Apps.Descriptor", PeerArgs{ID: c.ID, Network: what})
			wantError(t, what+" in SMC-D mode", err, libsmc.ErrSMCMode)
		}
		if r := c.mustDo("Apps.Descriptor", PeerArgs{ID: c.ID, Network: "TCPConn"}); r.N != 0 {
			t.Error("TCPConn in SMC-D mode is not nil")
		}
		wantError(t, "SetNoDelay and others", c.simple("Apps.Options", PeerArgs{}), nil)
	}
	d.wantGrowth(2000, func() { exchange(a, b, 1000) })
	p := server.Listen(plain, "tcp", "127.0.0.1:0")
	a, _ = connectTo(t, client, overSMC, p)
	wantTCP(a, smc.DeclPeerNoSMC, 0)
	for _, what := range []string{"look", "File", "TCPConn"} {
		r, err := a.do("Apps.Descriptor", PeerArgs{ID: a.ID, Network: what})
		if err != nil || r.N == 0 {
			t.Errorf("%s on TCP: %d, %v", what, r.N, err)
		}
	}
	wantError(t, "SetNoDelay and others", a.simple("Apps.Options", PeerArgs{}), nil)
}

// TestZeroCopy: what is lent, and what happens to it when the connection ends.
func TestZeroCopy(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		a, b := pairIn(t, d, client, server)
		borrow := func(c *peerConn) ([]byte, error) {
			r, err := c.do("Apps.Borrow", PeerArgs{ID: c.ID})
			return r.Data, err
		}
		fill := func(c *peerConn, text string) error {
			return c.simple("Apps.Fill", PeerArgs{Data: []byte(text)})
		}
		commit := func(c *peerConn, n int) error { return c.simple("Apps.Commit", PeerArgs{N: int64(n)}) }
		release := func(c *peerConn, n int) error { return c.simple("Apps.Release", PeerArgs{N: int64(n)}) }

		d.wantGrowth(5, func() {
			wantError(t, "Reserve", fill(a, "hello, world"), nil)
			_, err := a.Write([]byte("x"))
			wantError(t, "Write while space is reserved", err, libsmc.ErrLent)
			wantError(t, "Reserve while space is reserved", fill(a, "x"), libsmc.ErrLent)
			if err := commit(a, 13); err == nil {
				t.Error("Commit of more than was reserved")
			}
			wantError(t, "Commit", commit(a, 5), nil)
			got, err := borrow(b)
			wantText(t, "Borrow", got, err, "hello")
			_, err = b.Read(1)
			wantError(t, "Read while bytes are borrowed", err, libsmc.ErrLent)
			if err := release(b, 6); err == nil {
				t.Error("Release of more than was borrowed")
			}
			wantError(t, "Release", release(b, 2), nil)
			got, err = b.Read(10)
			wantText(t, "Read of the rest", got, err, "llo")
		})
		d.wantGrowth(600<<10, func() { exchange(a, b, 300<<10) })

		// Borrowed and reserved while the device ends the connection: both stay, and what is committed is lost.
		wantError(t, "Reserve", fill(b, "into nothing"), nil)
		d.wantGrowth(4, func() {
			_, err := a.Write([]byte("stay"))
			wantError(t, "Write", err, nil)
			got, err := borrow(b)
			wantText(t, "Borrow", got, err, "stay")
		})
		wantError(t, "active 0", d.Write("active", "0"), nil)
		_, err := a.Read(1)
		if err == nil {
			t.Error("Read after active 0")
		}
		wantError(t, "Close of the other end", a.Close(), nil)
		got, err := b.do("Apps.Borrowed", PeerArgs{ID: b.ID})
		wantText(t, "what is borrowed, afterwards", got.Data, err, "stay")
		wantError(t, "Close", b.Close(), nil)
		got, err = b.do("Apps.Borrowed", PeerArgs{ID: b.ID})
		wantText(t, "what is borrowed, after Close", got.Data, err, "stay")
		release(b, 4)
		if err := commit(b, 12); err == nil {
			t.Error("Commit to nobody succeeds")
		}
		client.CloseIdle()
		server.CloseIdle()
		d.WantCount(0)
	})
}

func TestZeroCopyOnTCP(t *testing.T) {
	_, client, server := smcPair(t)
	l := server.Listen(plain, "tcp", "127.0.0.1:0")
	a, _ := connectTo(t, client, overSMC, l)
	wantTCP(a, smc.DeclPeerNoSMC, 0)
	for _, call := range []string{"Apps.Borrow", "Apps.Fill", "Apps.Commit", "Apps.Release"} {
		wantError(t, call+" on TCP", a.simple(call, PeerArgs{Data: []byte("x"), N: 1}), libsmc.ErrTCPMode)
	}
}
