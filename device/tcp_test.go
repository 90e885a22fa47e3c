// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	tcpRest   = " 00000000:00000000 00:00000000 00000000     0        0 " // of a line, before its inode
)

// TestReadTCP: the tables as a little-endian host prints them.
func TestReadTCP(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the tables here are of a little-endian host")
	}
	inodes := map[uint64]bool{5: true, 77: true, 78: true, 80: true, 81: true, 90: true, 91: true}
	found := make(map[uint64]tcpSocket)
	for _, text := range []string{
		"   0: 0100007F:1A85 0100007F:1E61\n" +
			"   1: 0100007F:BDF6 0100007F:1E61 01" + tcpRest + "77 1 0000000000000000 20 4 30 10 -1\n" +
			"   2: 0200007F:BDF6 0100007F:1E61 08" + tcpRest + "78 1 0000000000000000 20 4 30 10 -1\n" +
			"   3: 0200007F:BDF7 0100007F:1E61 01" + tcpRest + "79 1 0000000000000000 20 4 30 10 -1\n" +
			"   4: 0100007F:BDFA 0100007F:1E61 01" + tcpRest + "0 3 0000000000000000\n" +
			"   5: 0100007G:BDF6 0100007F:1E61 01" + tcpRest + "80 1\n" +
			"   6: 00007F:BDF6 0100007F:1E61 01" + tcpRest + "81 1\n" +
			"   7: 0100007F:BDF6 0100007F 01" + tcpRest + "5 1\n",
		"   0: B80D0120000000000000000001000000:0001 0000000000000000FFFF00000100007F:0050 01" + tcpRest + "90 1 0000000000000000 20 4 30 10 -1\n",
		"   0: 0100007F:0001 0100007F:0002 01" + tcpRest + "91", // cut off where it says all that counts
	} {
		if err := readTCP(bufio.NewReader(strings.NewReader(tcpHeader+text)), inodes, found); err != nil {
			t.Fatal(err)
		}
	}
	want := map[uint64]tcpSocket{
		77: {netip.MustParseAddrPort("127.0.0.1:48630"), netip.MustParseAddrPort("127.0.0.1:7777")},
		78: {netip.MustParseAddrPort("127.0.0.2:48630"), netip.MustParseAddrPort("127.0.0.1:7777")},
		90: {netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[::ffff:127.0.0.1]:80")},
		91: {netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")},
	}
	if !maps.Equal(found, want) {
		t.Errorf("%v\nwant %v", found, want)
	}
}

// TestTCPStates: connections are listed from the end of their handshake until both directions have ended, or nobody has them any more.
func TestTCPStates(t *testing.T) {
	inodes, found := make(map[uint64]bool), make(map[uint64]tcpSocket)
	var text strings.Builder
	for state := uint64(1); state <= 12; state++ {
		inodes[state] = true
		fmt.Fprintf(&text, "   0: 0100007F:BDF6 0100007F:1E61 %02X%s%d 1\n", state, tcpRest, state)
	}
	if err := readTCP(bufio.NewReader(strings.NewReader(text.String())), inodes, found); err != nil {
		t.Fatal(err)
	}
	want := []uint64{1, 4, 5, 8, 9, 11} // ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING
	if have := slices.Sorted(maps.Keys(found)); !slices.Equal(have, want) {
		t.Errorf("states %v, want %v", have, want)
	}
}

// A tables is a /proc/PID/net with another text each time that a file is opened.
type tables struct {
	texts  map[string][]string
	opened []string
}

func (n *tables) Open(name string) (fs.File, error) {
	n.opened = append(n.opened, name)
	left := n.texts[name]
	if len(left) == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	n.texts[name] = left[1:]
	return fstest.MapFS{name: {Data: []byte(tcpHeader + left[0])}}.Open(name)
}

// TestReadTables: they are read as far as it takes, and once more if something is missing.
func TestReadTables(t *testing.T) {
	const (
		one   = "   0: 0100007F:0001 0100007F:0002 01" + tcpRest + "1 1\n"
		two   = "   1: 0100007F:0003 0100007F:0004 01" + tcpRest + "2 1\n"
		three = "   2: 0100007F:0005 0100007F:0006 01" + tcpRest + "3 1\n"
	)
	for _, row := range []struct {
		name      string
		tcp, tcp6 []string
		inodes    []uint64
		found     []uint64
		opened    string
		fails     bool
	}{
		{"nothing is looked for", []string{one}, nil, nil, nil, "", false},
		{"all in the first", []string{three + one + two}, nil, []uint64{1, 2}, []uint64{1, 2}, "tcp", false},
		{"in both", []string{one}, []string{two}, []uint64{1, 2}, []uint64{1, 2}, "tcp tcp6", false},
		{"passed over", []string{two, one + two}, []string{""}, []uint64{1, 2}, []uint64{1, 2}, "tcp tcp6 tcp", false},
		{"passed over in the second", []string{one, one}, []string{"", two}, []uint64{1, 2}, []uint64{1, 2}, "tcp tcp6 tcp tcp6", false},
		{"missing", []string{one, one}, []string{"", ""}, []uint64{1, 2}, []uint64{1}, "tcp tcp6 tcp tcp6", false},
		{"no IPv6", []string{one, one}, nil, []uint64{1, 2}, []uint64{1}, "tcp tcp6 tcp tcp6", false},
		{"gone", []string{one}, []string{""}, []uint64{1, 2}, nil, "tcp tcp6 tcp", true},
	} {
		n := &tables{texts: map[string][]string{"tcp": row.tcp, "tcp6": row.tcp6}}
		inodes := make(map[uint64]bool)
		for _, i := range row.inodes {
			inodes[i] = true
		}
		found, err := readTables(n, inodes)
		if have := slices.Sorted(maps.Keys(found)); !slices.Equal(have, row.found) || row.fails != (err != nil) {
			t.Errorf("%s: %v, %v; want %v", row.name, have, err, row.found)
		}
		if opened := strings.Join(n.opened, " "); opened != row.opened {
			t.Errorf("%s: it has read %s, want %s", row.name, opened, row.opened)
		}
	}
}
