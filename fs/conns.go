// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"net/netip"
	"strconv"

	"github.com/ismfs/ismfs/device"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// showConns is conns: a line for each connection and listener, its fields as docs/tree.md has them.
func (t *tree) showConns(c device.Caller) (string, error) {
	defer t.snapshots.takeTurn(t.dev, c)()
	list, err := t.dev.Conns(c)
	if err != nil {
		return "", err
	}
	b := make(line, 0, 256*len(list))
	for i := range list {
		b.conn(&list[i])
	}
	return string(b), nil
}

// showLinkGroups is linkgroups: a line for each link group.
func (t *tree) showLinkGroups(c device.Caller) (string, error) {
	defer t.snapshots.takeTurn(t.dev, c)()
	list, err := t.dev.LinkGroups(c)
	if err != nil {
		return "", err
	}
	var b line
	for i := range list {
		b.group(&list[i])
	}
	return string(b), nil
}

// A line is text to which lines are added field by field, without the cost of package fmt: there can be thousands.
type line []byte

func (b *line) text(s string) {
	if s == "" {
		s = "-"
	}
	*b = append(append(*b, s...), ' ')
}

func (b *line) number(v uint64) { *b = append(strconv.AppendUint(*b, v, 10), ' ') }

// known is number for what 0 says that it is unknown.
func (b *line) known(v uint64) {
	if v == 0 {
		b.text("-")
		return
	}
	b.number(v)
}

// digits adds a number in hex with leading zeros.
func (b *line) digits(v uint64, width int) {
	const hex = "0123456789abcdef"
	for shift := 4 * (width - 1); shift >= 0; shift -= 4 {
		*b = append(*b, hex[v>>shift&15])
	}
}

// hex adds a field of so many hex digits, "-" for 0.
func (b *line) hex(v uint64, width int) {
	if v == 0 {
		b.text("-")
		return
	}
	b.digits(v, width)
	*b = append(*b, ' ')
}

func (b *line) address(a netip.AddrPort) {
	if !a.IsValid() {
		b.text("-")
		return
	}
	*b = append(a.AppendTo(*b), ' ')
}

func (b *line) reason(reason, diagnosis smc.DeclineCode) {
	if reason == 0 {
		b.text("-")
		return
	}
	*b = append(*b, "0x"...)
	b.digits(uint64(reason), 8)
	if diagnosis != 0 {
		*b = append(*b, "/0x"...)
		b.digits(uint64(diagnosis), 8)
	}
	*b = append(*b, ' ')
}

func (b *line) cursor(c smc.Cursor) {
	b.digits(uint64(c.Wrap), 4)
	*b = append(*b, ':')
	b.digits(uint64(c.Count), 8)
	*b = append(*b, ' ')
}

// header adds both cursors and the flags of a DMB's header.
func (b *line) header(r *device.Ring) {
	if r == nil {
		*b = append(*b, "- - - "...)
		return
	}
	b.cursor(r.Producer)
	b.cursor(r.Consumer)
	b.digits(uint64(r.ProducerFlags), 2)
	*b = append(*b, ':')
	b.digits(uint64(r.StateFlags), 2)
	*b = append(*b, ' ')
}

// end turns the blank behind the last field into the end of the line.
func (b *line) end() { (*b)[len(*b)-1] = '\n' }

func (b *line) conn(c *device.ConnInfo) {
	b.text(c.State.String())
	b.number(uint64(c.UID))
	b.number(uint64(c.PID))
	b.known(c.NetNS)
	b.address(c.Local)
	b.address(c.Peer)
	b.text(modeText(&c.Conn))
	b.reason(c.Reason, c.PeerDiagnosis)
	b.hex(c.Token, 16)
	b.hex(c.PeerToken, 16)
	b.hex(uint64(c.LinkID), 8)
	b.header(c.Own)
	b.header(c.Other)
	b.text(c.Role.String())
	b.number(c.Inode)
	b.text(shutdownText(&c.Conn))
	b.sizes(c)
	b.number(uint64(c.ProcessID))
	b.end()
}

func modeText(c *procs.Conn) string {
	if c.Listener {
		return "LISTEN"
	}
	return c.Mode.String()
}

// shutdownText is smcss's: R and W are the directions that are shut.
func shutdownText(c *procs.Conn) string {
	text := []byte("<->")
	if c.ShutRead {
		text[0] = 'R'
	}
	if c.ShutWrite {
		text[2] = 'W'
	}
	return string(text)
}

// sizes adds the sizes of the buffers, without the headers, and the number of the own DMB. Merged with the peer's DMB, the send
// buffer is the same memory; a separate one is the process's own and unknown.
func (b *line) sizes(c *device.ConnInfo) {
	var sndbuf, rcvbuf, peerbuf, number uint64
	if c.Own != nil {
		rcvbuf, number = uint64(c.Own.Size-smc.CDCLen), uint64(c.Own.Number)
	}
	if c.Other != nil {
		peerbuf = uint64(c.Other.Size - smc.CDCLen)
		if !c.Other.Copy {
			sndbuf = peerbuf
		}
	}
	for _, v := range []uint64{sndbuf, rcvbuf, peerbuf, number} {
		b.number(v)
	}
}

// smcVersion is that of every link group here: a loopback device takes connections of version 2 only.
const smcVersion = 2

func (b *line) group(g *device.GroupInfo) {
	b.digits(uint64(g.ID), 8)
	*b = append(*b, ' ')
	b.text(g.Role.String())
	b.number(uint64(g.Conns))
	b.number(uint64(g.UID))
	b.number(uint64(g.PID))
	b.number(uint64(g.ProcessID))
	b.known(uint64(g.PeerPID))
	b.known(uint64(g.Peer))
	b.number(smcVersion)
	b.number(uint64(g.Release))
	b.number(uint64(g.OS))
	b.text(g.Host)
	b.text(g.EID.String())
	b.number(0) // VLAN
	b.number(0) // bytes of send buffers
	b.number(uint64(g.Bytes))
	b.end()
}
