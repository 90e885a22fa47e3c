// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"strconv"
)

// A tcpSocket is a TCP connection as the kernel lists it.
type tcpSocket struct{ local, peer netip.AddrPort }

// tcpTables are read one after the other until all is found. Twice: the kernel hands a table over in pieces, and where one ends can
// pass over a connection if another one goes just then.
var tcpTables = [...]string{"tcp", "tcp6", "tcp", "tcp6"}

// readTables looks for connections, by their inodes, in the tables of /proc/PID/net.
func readTables(net fs.FS, inodes map[uint64]bool) (map[uint64]tcpSocket, error) {
	found := make(map[uint64]tcpSocket)
	text := bufio.NewReaderSize(nil, 64<<10)
	for _, name := range tcpTables {
		if len(found) == len(inodes) {
			break
		}
		file, err := net.Open(name)
		if name == "tcp6" && errors.Is(err, fs.ErrNotExist) { // no IPv6 on this host
			continue
		}
		if err != nil {
			return nil, err
		}
		text.Reset(file)
		err = readTCP(text, inodes, found)
		file.Close()
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// readTCP looks for connections in the text of a table: those whose handshake is over, and that are not closed.
func readTCP(text *bufio.Reader, inodes map[uint64]bool, found map[uint64]tcpSocket) error {
	for {
		line, err := text.ReadSlice('\n')
		if inode, s, ok := parseLine(line, inodes); ok {
			found[inode] = s
		}
		switch err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// parseLine reads a line of such a table; of most lines on a host with many connections, no more than tells that it is not looked for.
func parseLine(line []byte, inodes map[uint64]bool) (inode uint64, s tcpSocket, ok bool) {
	const local, peer, state, number = 1, 2, 3, 9
	var f [number + 1][]byte
	n := 0
	for field := range bytes.FieldsSeq(line) {
		if n == state && !established(field) {
			return 0, s, false
		}
		f[n] = field
		if n++; n == len(f) {
			break
		}
	}
	if n < len(f) {
		return 0, s, false
	}
	inode, err := strconv.ParseUint(string(f[number]), 10, 64)
	if err != nil || !inodes[inode] {
		return 0, s, false
	}
	var okLocal, okPeer bool
	s.local, okLocal = parseTCP(f[local])
	s.peer, okPeer = parseTCP(f[peer])
	return inode, s, okLocal && okPeer
}

func established(state []byte) bool {
	switch string(state) {
	case "01", "04", "05", "08", "09", "0B": // ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING
		return true
	}
	return false
}

// parseTCP reads ADDRESS:PORT in hex. An address is one or four words, each as the host would print that number.
func parseTCP(text []byte) (netip.AddrPort, bool) {
	host, port, ok := bytes.Cut(text, []byte(":"))
	number, err := strconv.ParseUint(string(port), 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	b := make([]byte, hex.DecodedLen(len(host)))
	if _, err := hex.Decode(b, host); err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := b; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(number)), ok
}
