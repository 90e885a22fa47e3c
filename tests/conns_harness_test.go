// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Slots are written here by hand, from the tables of docs/dmb-format.md, 3.3.
const (
	firstSlot = 2048
	slotSize  = 128

	kindConn, kindListener, kindGroup = 1, 2, 3
	roleClient, roleServer            = 1, 2
	modeTCP, modeSMCD                 = 1, 2
	stateActive, stateListen          = 1, 10
)

type slot [slotSize]byte

func (s *slot) u16(off int, v uint16) { binary.NativeEndian.PutUint16(s[off:], v) }
func (s *slot) u32(off int, v uint32) { binary.NativeEndian.PutUint32(s[off:], v) }

// token puts a token as its file is named, which is the number in hex.
func (s *slot) token(off int, token string) {
	b, err := hex.DecodeString(token)
	if err != nil || len(b) != 8 {
		panic(token)
	}
	binary.NativeEndian.PutUint64(s[off:], binary.BigEndian.Uint64(b))
}

func (s *slot) address(off, portOff int, a string) {
	ap := netip.MustParseAddrPort(a)
	s[8] = 4
	if ap.Addr().Is6() {
		s[8] = 6
	}
	copy(s[off:], ap.Addr().AsSlice())
	s.u16(portOff, ap.Port())
}

// connSlot is the slot of a connection of two DMBs in a link group.
func connSlot(role byte, local, peer, token, peerToken string, group uint32) *slot {
	s := &slot{4: kindConn, 5: role, 6: modeSMCD, 7: stateActive}
	s.address(16, 10, local)
	s.address(32, 12, peer)
	s.token(48, token)
	s.token(56, peerToken)
	s.u32(64, group)
	return s
}

// tcpSlot is the slot of a connection that has fallen back.
func tcpSlot(local, peer string, reason, diagnosis uint32) *slot {
	s := &slot{4: kindConn, 5: roleClient, 6: modeTCP, 7: stateActive}
	s.address(16, 10, local)
	s.address(32, 12, peer)
	s.u32(68, reason)
	s.u32(72, diagnosis)
	return s
}

func listenerSlot(local string) *slot {
	s := &slot{4: kindListener, 6: modeSMCD, 7: stateListen}
	s.address(16, 10, local)
	return s
}

func groupSlot(role byte, id, peer uint32, host string) *slot {
	s := &slot{4: kindGroup, 5: role, 6: 1, 7: 2}
	s.u32(8, id)
	s.u32(12, peer)
	copy(s[32:], "SITE-A"+strings.Repeat(" ", 26))
	copy(s[64:], host+strings.Repeat(" ", 32-len(host)))
	return s
}

// SetSlot writes a slot of a procs block, with the sequence word around it.
func (c *client) SetSlot(block, i int, s *slot) {
	c.t.Helper()
	off := int64(firstSlot + slotSize*i)
	seq := c.Word(block, off)
	put := func(b []byte, off int64) {
		if err := c.Store(block, b, off); err != nil {
			c.t.Fatal(err)
		}
	}
	put(binary.NativeEndian.AppendUint32(nil, seq+1), off)
	put(s[4:], off+4)
	put(binary.NativeEndian.AppendUint32(nil, seq+2), off)
}

// BigBlock makes the client's procs block with room for many slots. It is populated where it is written.
func (c *client) BigBlock(d *device, size int) (block int) {
	c.t.Helper()
	fd := c.MustOpen(d.Path("procs", "self"), unix.O_RDWR|unix.O_CREAT)
	if err := c.Truncate(fd, int64(size)); err != nil {
		c.t.Fatal(err)
	}
	block, err := c.Mmap(fd, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		c.t.Fatal(err)
	}
	return block
}

// lineFields splits what conns or linkgroups holds into lines and fields, and checks their number.
func lineFields(t *testing.T, text string, fields int) [][]string {
	t.Helper()
	var list [][]string
	for l := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(l, "\n"), " ")
		if len(f) != fields {
			t.Fatalf("a line of %d fields, not %d: %q", len(f), fields, l)
		}
		list = append(list, f)
	}
	return list
}

const (
	connFields  = 25
	groupFields = 16
)

// Conns reads conns as the client.
func (c *client) Conns(d *device) [][]string {
	c.t.Helper()
	text, err := c.ReadFile(d.Path("conns"))
	if err != nil {
		c.t.Fatal(err)
	}
	return lineFields(c.t, text, connFields)
}

// Conns reads conns as root.
func (d *device) Conns() [][]string {
	d.t.Helper()
	return lineFields(d.t, d.Read("conns"), connFields)
}

func (d *device) LinkGroups() [][]string {
	d.t.Helper()
	return lineFields(d.t, d.Read("linkgroups"), groupFields)
}

func wantLine(t *testing.T, what string, have []string, want string) {
	t.Helper()
	if got := strings.Join(have, " "); got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

// number is the number of a DMB, the low half of its inode's.
func (c *client) number(fd int) string {
	c.t.Helper()
	st, err := c.Fstat(fd)
	if err != nil {
		c.t.Fatal(err)
	}
	return strconv.FormatUint(st.Ino&0xffffffff, 10)
}
