// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// capture returns the segments that a namespace sends over its loopback, once stop is called.
func capture(t *testing.T, n *netns) (stop func() []segment) {
	t.Helper()
	fd := -1
	n.do(t, func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	return func() (segments []segment) {
		b := make([]byte, 1<<16)
		for {
			k, from, err := unix.Recvfrom(fd, b, 0)
			if err == unix.EAGAIN {
				return segments
			}
			if err != nil {
				t.Fatal(err)
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
				continue // on the loopback each packet comes twice
			}
			if s, ok := parseSegment(b[:k]); ok {
				segments = append(segments, s)
			}
		}
	}
}

// The option is in the SYN and in the SYN-ACK, byte for byte, and in no other segment. It stands beside the usual options.
func TestOnTheWire(t *testing.T) {
	r := register(t, newHost(t), 1)
	for _, at := range []netip.Addr{loopback4, loopback6} {
		for _, c := range []struct {
			name         string
			client, serv bool
		}{{"both SMC", true, true}, {"client SMC", true, false}, {"server SMC", false, true}, {"both plain", false, false}} {
			n := newNetns(t)
			stop := capture(t, n)
			l, addr := bound(t, n, at)
			if c.serv {
				mark(t, l, r.tag)
			}
			listen(t, l)
			fd := n.socket(t, at)
			if c.client {
				mark(t, fd, r.tag)
			}
			if err := connect(fd, addr); err != nil {
				t.Fatal(err)
			}
			s := accept(t, l)
			for range 10 {
				transfer(t, fd, s)
			}
			hangUp(t, fd)
			hangUp(t, s)
			time.Sleep(20 * time.Millisecond)

			segments := stop()
			if len(segments) < 20 {
				t.Fatalf("%s: %d segments seen", c.name, len(segments))
			}
			for _, s := range segments {
				var want []byte
				switch {
				case s.flags&(flagSYN|flagACK) == flagSYN && c.client:
					want = ourOption(1, r.tag)
				case s.flags&flagSYN != 0 && s.flags&flagACK != 0 && c.client && c.serv:
					want = ourOption(2, r.tag)
				}
				got, err := s.experimental()
				if err != nil || len(got) > 1 || !bytes.Equal(bytes.Join(got, nil), want) {
					t.Errorf("%v %s: flags %#x have % x (%v), want % x", at, c.name, s.flags, got, err, want)
				}
				if s.flags&flagSYN != 0 && (!bytes.Contains(s.options, []byte{2, 4}) || !bytes.Contains(s.options, []byte{8, 10}) || !bytes.Contains(s.options, []byte{3, 3})) {
					t.Errorf("%v %s: the usual options are missing: % x", at, c.name, s.options)
				}
			}
		}
	}
}

// tshark takes it for the kernel's option, with nothing to complain of.
func TestTshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("tshark is missing (Debian: tshark)")
	}
	r := register(t, newHost(t), 1)
	n := newNetns(t)
	stop := capture(t, n)
	l, at := listener(t, n, loopback4, r.tag)
	c := dial(t, n, at, r.tag)
	transfer(t, c, accept(t, l))

	// A pcap of raw IPv4 packets.
	file := bytes.NewBuffer([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 228, 0, 0, 0})
	for i, s := range stop() {
		p := s.packet4()
		file.Write([]byte{0, 0, 0, 0, byte(i), 0, 0, 0, byte(len(p)), 0, 0, 0, byte(len(p)), 0, 0, 0})
		file.Write(p)
	}
	name := filepath.Join(t.TempDir(), "handshake.pcap")
	if err := os.WriteFile(name, file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	show := func(args ...string) string {
		out, err := exec.Command("tshark", append([]string{"-r", name}, args...)...).Output()
		if err != nil {
			t.Fatalf("tshark %q: %v", args, err)
		}
		return string(out)
	}
	for _, flags := range []string{"0x0002", "0x0012"} {
		if got := show("-Y", "tcp.flags == "+flags, "-O", "tcp"); !strings.Contains(got, "Shared Memory communications") {
			t.Errorf("tshark shows %s", got)
		}
	}
	if got := show("-Y", "_ws.expert.severity >= warning", "-V"); got != "" {
		t.Errorf("tshark warns: %s", got)
	}
}
