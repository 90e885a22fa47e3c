// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A fakeHost is the other end of a TUN device: a host whose packets the test makes by hand. It has one connection at a time.
type fakeHost struct {
	t    *testing.T
	tun  *os.File
	ours netip.Addr     // of the namespace
	at   netip.AddrPort // the fake host; each connection has the next port
}

func newFakeHost(n *netns) *fakeHost {
	t := n.t
	t.Helper()
	f := &fakeHost{t: t, ours: netip.MustParseAddr("10.77.0.1"), at: netip.MustParseAddrPort("10.77.0.2:7000")}
	if _, err := os.Stat("/dev/net/tun"); errors.Is(err, os.ErrNotExist) {
		t.Skip("/dev/net/tun is missing (CONFIG_TUN)")
	}
	var fd int
	n.do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq("tun0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	f.tun = os.NewFile(uintptr(fd), "tun") // only now is it one that can be polled
	t.Cleanup(func() { f.tun.Close() })
	n.run("ip", "addr", "add", f.ours.String()+"/24", "dev", "tun0")
	n.run("ip", "link", "set", "tun0", "up")
	return f
}

// packet4 returns the segment in an IPv4 packet.
func (s segment) packet4() []byte {
	t := make([]byte, 20+(len(s.options)+3)&^3, 1500)
	binary.BigEndian.PutUint16(t, s.from.Port())
	binary.BigEndian.PutUint16(t[2:], s.to.Port())
	binary.BigEndian.PutUint32(t[4:], s.seq)
	binary.BigEndian.PutUint32(t[8:], s.ack)
	t[12], t[13] = byte(len(t))/4<<4, s.flags
	binary.BigEndian.PutUint16(t[14:], 64240)
	copy(t[20:], s.options)
	t = append(t, s.payload...)

	src, dst := s.from.Addr().As4(), s.to.Addr().As4()
	pseudo := append(append(src[:], dst[:]...), 0, 6, byte(len(t)>>8), byte(len(t)))
	binary.BigEndian.PutUint16(t[16:], internetChecksum(append(pseudo, t...)))

	ip := []byte{0x45, 0, byte((20 + len(t)) >> 8), byte(20 + len(t)), 0, 0, 0x40, 0, 64, 6, 0, 0}
	ip = append(append(ip, pseudo[:4]...), dst[:]...)
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	return append(ip, t...)
}

func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (^i & 1))
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (f *fakeHost) send(s segment) {
	f.t.Helper()
	if _, err := f.tun.Write(s.packet4()); err != nil {
		f.t.Fatal(err)
	}
}

// receive returns the next segment for the fake host's present port.
func (f *fakeHost) receive() segment {
	f.t.Helper()
	b := make([]byte, 2048)
	f.tun.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := f.tun.Read(b)
		if err != nil {
			f.t.Fatal(err)
		}
		if s, ok := parseSegment(b[:n]); ok && s.to == f.at {
			return s
		}
	}
}

// A fakeConn is a connection of the fake host's.
type fakeConn struct {
	*fakeHost
	to       netip.AddrPort
	seq, ack uint32
}

// accept takes a connection to the fake host. options is what its SYN-ACK has. No segment of the client's beyond the third is
// looked at.
func (f *fakeHost) accept(options func(syn segment) []byte) *fakeConn {
	f.t.Helper()
	syn := f.receive()
	for syn.flags&(flagSYN|flagACK|flagRST) != flagSYN {
		syn = f.receive()
	}
	c := &fakeConn{f, syn.from, 1000, syn.seq + 1}
	f.send(segment{from: f.at, to: c.to, seq: c.seq, ack: c.ack, flags: flagSYN | flagACK, options: options(syn)})
	c.seq++
	if ack := f.receive(); ack.flags != flagACK || ack.seq != c.ack || ack.ack != c.seq || len(ack.payload) != 0 {
		f.t.Fatalf("to the SYN-ACK: %+v", ack)
	}
	return c
}

// dial connects to a listener with a SYN that has these options.
func (f *fakeHost) dial(address string, options []byte, answered func(synack segment)) *fakeConn {
	f.t.Helper()
	c := &fakeConn{fakeHost: f, to: netip.MustParseAddrPort(address), seq: 1000}
	f.send(segment{from: f.at, to: c.to, seq: c.seq, flags: flagSYN, options: options})
	synack := f.receive()
	if synack.flags&(flagSYN|flagACK|flagRST) != flagSYN|flagACK {
		f.t.Fatalf("to the SYN: %+v", synack)
	}
	answered(synack)
	c.seq, c.ack = synack.ack, synack.seq+1
	f.send(segment{from: f.at, to: c.to, seq: c.seq, ack: c.ack, flags: flagACK})
	return c
}

// next returns the next payload, and acknowledges it. Whatever else comes meanwhile is acknowledgements.
func (c *fakeConn) next() []byte {
	c.t.Helper()
	for {
		s := c.receive()
		if s.flags&(flagSYN|flagRST|flagFIN) != 0 {
			c.t.Fatalf("instead of bytes: %+v", s)
		}
		if len(s.payload) == 0 || s.seq != c.ack { // one that was sent again
			continue
		}
		c.ack += uint32(len(s.payload))
		c.send(segment{from: c.at, to: c.to, seq: c.seq, ack: c.ack, flags: flagACK})
		return s.payload
	}
}

func (c *fakeConn) wantNext(text string) {
	c.t.Helper()
	if got := string(c.next()); got != text {
		c.t.Errorf("the next bytes are %q, want %q", got, text)
	}
}

func (c *fakeConn) write(text string) {
	c.t.Helper()
	c.send(segment{from: c.at, to: c.to, seq: c.seq, ack: c.ack, flags: flagACK, payload: []byte(text)})
	c.seq += uint32(len(text))
}

// reset ends the connection. The next one has another port.
func (c *fakeConn) reset() {
	c.t.Helper()
	c.send(segment{from: c.at, to: c.to, seq: c.seq, ack: c.ack, flags: flagRST | flagACK})
	c.fakeHost.at = netip.AddrPortFrom(c.at.Addr(), c.at.Port()+1)
}
