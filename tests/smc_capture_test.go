// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// A segment is a TCP segment in an IP packet.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	options  []byte
	payload  []byte
}

// parseSegment reads an IP packet. It is no TCP segment, or cut: false.
func parseSegment(p []byte) (s segment, ok bool) {
	var src, dst netip.Addr
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && p[9] == 6:
		src, dst = netip.AddrFrom4([4]byte(p[12:])), netip.AddrFrom4([4]byte(p[16:]))
		p = p[int(p[0]&15)*4 : min(len(p), int(binary.BigEndian.Uint16(p[2:])))]
	case len(p) >= 40 && p[0]>>4 == 6 && p[6] == 6:
		src, dst = netip.AddrFrom16([16]byte(p[8:])), netip.AddrFrom16([16]byte(p[24:]))
		p = p[40:]
	default:
		return s, false
	}
	if len(p) < 20 || len(p) < int(p[12]>>4)*4 {
		return s, false
	}
	header := int(p[12]>>4) * 4
	return segment{
		from: netip.AddrPortFrom(src, binary.BigEndian.Uint16(p)), to: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(p[2:])),
		seq: binary.BigEndian.Uint32(p[4:]), ack: binary.BigEndian.Uint32(p[8:]),
		flags: p[13], options: bytes.Clone(p[20:header]), payload: bytes.Clone(p[header:]),
	}, true
}

// experimental returns the options of kind 253 and 254, one behind the other.
func (s segment) experimental() (found []byte) {
	for o := s.options; len(o) > 1 && o[0] != 0; {
		n := 1 // of a NOP
		if o[0] != 1 {
			n = max(2, min(int(o[1]), len(o)))
		}
		if o[0] >= 253 {
			found = append(found, o[:n]...)
		}
		o = o[n:]
	}
	return found
}

// smcOption is the option of docs/bpf.md, byte for byte.
func smcOption(direction byte, tag smcopt.Tag) []byte {
	return append([]byte{254, 14, 0xE2, 0xD4, 0xC3, 0xD9, direction}, tag[:]...)
}

// A capture is what goes over the loopback of a namespace.
type capture struct {
	t      *testing.T
	fd     int
	frames [][]byte // Ethernet
}

func (n *netns) capture() *capture {
	n.t.Helper()
	c := &capture{t: n.t, fd: -1}
	n.do(func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		return err
	})
	n.t.Cleanup(func() { unix.Close(c.fd) })
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		n.t.Fatal(err)
	}
	return c
}

// take reads what has come.
func (c *capture) take() {
	c.t.Helper()
	b := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING { // each packet comes twice
			c.frames = append(c.frames, bytes.Clone(b[:n]))
		}
	}
}

// segments are the TCP segments of a connection so far; client is its address.
func (c *capture) segments(client string) (of []segment) {
	c.t.Helper()
	c.take()
	for _, f := range c.frames {
		if s, ok := parseSegment(f[14:]); ok && (s.from.String() == client || s.to.String() == client) {
			of = append(of, s)
		}
	}
	return of
}

func (c *capture) of(a *peerConn) []segment {
	c.t.Helper()
	return c.segments(a.Local)
}

// payloads are those of segments that have one.
func payloads(segments []segment) (of [][]byte) {
	for _, s := range segments {
		if len(s.payload) > 0 {
			of = append(of, s.payload)
		}
	}
	return of
}

// goldenMessages are the payloads of a capture of a real kernel, one a segment.
func goldenMessages(t *testing.T, name string) (messages [][]byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../smc/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	for b = b[24:]; len(b) > 0; {
		n := binary.LittleEndian.Uint32(b[8:])
		if s, ok := parseSegment(b[16+14 : 16+n]); ok && len(s.payload) > 0 {
			messages = append(messages, s.payload)
		}
		b = b[16+n:]
	}
	return messages
}

// wantLegible has tshark decode what was captured: n connections' handshakes, the option and every CLC message known for what
// it is, and nothing to complain of. A reset connection is one for tshark.
func (c *capture) wantLegible(n int) {
	c.t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		if os.Getenv("CI") != "" {
			c.t.Error("tshark is missing (Debian: tshark)")
		}
		c.t.Log("tshark is missing (Debian: tshark)")
		return
	}
	c.take()
	// A pcap file of Ethernet frames, each a millisecond after the one before.
	file := bytes.NewBuffer([]byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0})
	for i, f := range c.frames {
		record := binary.LittleEndian.AppendUint32(nil, uint32(i/1000))
		for _, v := range []int{i % 1000 * 1000, len(f), len(f)} {
			record = binary.LittleEndian.AppendUint32(record, uint32(v))
		}
		file.Write(append(record, f...))
	}
	name := filepath.Join(c.t.TempDir(), "all.pcap")
	if err := os.WriteFile(name, file.Bytes(), 0o644); err != nil {
		c.t.Fatal(err)
	}
	show := func(args ...string) string {
		// Also where the client's port, which the kernel chose, is another protocol's.
		args = append([]string{"-o", "tcp.try_heuristic_first:TRUE", "-r", name}, args...)
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			c.t.Fatalf("tshark %q: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	const complaint = "(_ws.expert.severity >= warning && !tcp.flags.reset) || _ws.malformed"
	if got := show("-Y", complaint, "-V"); got != "" {
		c.t.Errorf("tshark complains: %s", got)
	}
	for _, flags := range []string{"0x0002", "0x0012"} {
		got := show("-Y", "tcp.flags == "+flags+" && tcp.options.experimental.exid == 0xe2d4", "-O", "tcp")
		if k := strings.Count(got, "TCP Option - Experimental: Shared Memory communications"); k != n {
			c.t.Errorf("%d segments with flags %s have the option, want %d: %s", k, flags, n, got)
		}
	}
	// Every CLC message, and nothing else, is one for tshark.
	kinds := map[byte]string{1: "[SMC-Dv2-Proposal]", 2: "[SMC-Dv2-Accept]", 3: "[SMC-Dv2-Confirm]", 4: "[SMCv2-Decline]"}
	var want []string
	for _, f := range c.frames {
		if s, ok := parseSegment(f[14:]); ok && len(s.payload) > 4 && s.payload[0] == 0xE2 {
			want = append(want, kinds[s.payload[4]])
		}
	}
	var got []string
	for line := range strings.Lines(show("-Y", "smc", "-T", "fields", "-e", "_ws.col.Info")) {
		kind, _, _ := strings.Cut(line, ",")
		got = append(got, kind)
	}
	if len(want) < n || strings.Join(got, " ") != strings.Join(want, " ") {
		c.t.Errorf("tshark shows\n%q, want\n%q", got, want)
	}
}
