// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// socketOptions are smcss's.
type socketOptions struct {
	all, listening, debug, smcd, smcr, wide bool
}

func newSocketsCommand(opts *options) *cobra.Command {
	var o socketOptions
	cmd := &cobra.Command{
		Use:   "sockets",
		Short: "Show the SMC sockets, as smcss does",
		Long: `Show one row for each connection that the caller may see, in the columns of smcss: its own processes'
connections, or all if it is privileged. Listeners and connections whose handshake goes on come with -a,
listeners alone with -l.

The Inode is that of the TCP socket, and a mode of TCP is followed by the reason, and by the peer's if it was
the peer that declined. With -d, Token is the number of the own DMB, tx cursors are those that the peer has
been told of, and Sndbuf is 0 where it is not the peer's DMB itself (dmb_copy 1). As with smcss, an address of
which only the first four bytes are not zero looks like one of IPv4: [::] is 0.0.0.0. JSON tells them apart.

JSON, of the same sockets: {"sockets": [{"state": "ACTIVE", "uid": 0, "pid": 1, "net_ns": 4026531840,
"local": "127.0.0.1:7777", "peer": "127.0.0.1:40130", "mode": "SMCD", ...}, ...]}`,
		Example: "  smcd-dump sockets\n  smcd-dump sockets -a\n  smcd-dump sockets -dW",
		Args:    words("show"),
		PreRunE: func(*cobra.Command, []string) error {
			o.all, o.debug = o.all || opts.absolute, o.debug || opts.details
			return o.check()
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showSockets(cmd.OutOrStdout(), opts, o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.all, "all", "a", false, "show all sockets")
	flags.BoolVarP(&o.listening, "listening", "l", false, "show listening sockets")
	flags.BoolVarP(&o.debug, "debug", "d", false, "show debug socket information")
	flags.BoolVarP(&o.wide, "wide", "W", false, "do not truncate IP addresses")
	flags.BoolVarP(&o.smcd, "smcd", "D", false, "show detailed SMC-D information (shows only SMC-D sockets)")
	flags.BoolVarP(&o.smcr, "smcr", "R", false, "show detailed SMC-R information (shows only SMC-R sockets: there are none)")
	return cmd
}

// check refuses what smcss refuses, in its words.
func (o *socketOptions) check() error {
	for _, c := range []struct {
		refused bool
		what    string
	}{
		{o.smcr && o.smcd, "--smcd together with --smcr"},
		{o.listening && o.debug, "--listening together with --debug"},
		{o.listening && o.all, "--listening together with --all"},
		{o.listening && o.smcr, "--listening together with --smcr"},
		{o.listening && o.smcd, "--listening together with --smcd"},
	} {
		if c.refused {
			return fmt.Errorf("%s is not supported", c.what)
		}
	}
	return nil
}

// shows reports whether smcss would show a socket.
func (o *socketOptions) shows(c *tree.Conn) bool {
	listen, initial := c.State == smc.Listen.String(), c.State == smc.Init.String()
	switch {
	case o.listening:
		return listen
	case !o.all && (listen || initial):
		return false
	case o.smcr:
		return false
	case o.smcd:
		return c.Mode == tree.ModeSMCD
	}
	return true
}

// A socket is a connection and the GID of the device that it is on.
type socket struct {
	tree.Conn
	gid string
}

func showSockets(w io.Writer, opts *options, o socketOptions) error {
	devices, err := opts.devices()
	if err != nil {
		return err
	}
	var list []socket
	conns := []tree.Conn{}
	for _, d := range devices {
		gid, err := d.GID()
		if err != nil {
			return err
		}
		all, err := d.Conns()
		if err != nil {
			return err
		}
		for _, c := range all {
			if o.shows(&c) {
				list = append(list, socket{c, gid})
				conns = append(conns, c)
			}
		}
	}
	if opts.json {
		return writeJSON(w, "sockets", conns)
	}
	var b strings.Builder
	o.header(&b)
	for i := range list {
		o.row(&b, &list[i])
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// header prints smcss's, with the blanks behind it.
func (o *socketOptions) header(b *strings.Builder) {
	b.WriteString("State          UID   Inode   Local Address           Peer Address            Intf Mode ")
	if o.debug {
		b.WriteString("Shutd Token    Sndbuf   Rcvbuf   Peerbuf  rxprod-Cursor rxcons-Cursor rxFlags " +
			"txprod-Cursor txcons-Cursor txFlags txprep-Cursor txsent-Cursor txfin-Cursor  ")
	}
	if o.smcr {
		b.WriteString("Role IB-device       Port Linkid GID                                      Peer-GID")
	}
	if o.smcd {
		b.WriteString("GID              Token            Peer-GID         Peer-Token       Linkid")
	}
	b.WriteByte('\n')
}

// row prints a socket as smcss's show_one_smc_sock does, which ends the row where a state or mode has no more to tell.
func (o *socketOptions) row(b *strings.Builder, s *socket) {
	defer b.WriteByte('\n')
	fmt.Fprintf(b, "%-14s %05d %07d ", stateName(s.State), s.UID, s.Inode)
	if s.State == smc.Init.String() {
		return
	}
	fmt.Fprintf(b, "%-23s ", o.address(s.Local))
	if s.State == smc.Listen.String() {
		return
	}
	fmt.Fprintf(b, "%-23s %04x ", o.address(s.Peer), 0)
	switch {
	case s.State == smc.Closed.String():
		return
	case s.Mode == tree.ModeTCP:
		fmt.Fprintf(b, "TCP 0x%08x", s.Reason)
		if s.PeerDiagnosis != 0 {
			fmt.Fprintf(b, "/0x%08x", s.PeerDiagnosis)
		}
		return
	}
	fmt.Fprintf(b, "%-4s ", string(s.Mode))
	if o.debug {
		debugColumns(b, &s.Conn)
	}
	if o.smcd {
		gid, _, _ := strings.Cut(strings.ReplaceAll(s.gid, "-", ""), "\n")
		fmt.Fprintf(b, "%.16s %s %.16s %s %08x ", gid, token(s.Token), gid, token(s.PeerToken), s.LinkID)
	}
}

// stateName is smcss's name of a state, which is the kernel's but for one.
func stateName(s string) string {
	if s == smc.AppFinCloseWait.String() {
		return "APPFINCLOSEWAIT1"
	}
	return s
}

// token prints 0 where there is none that the device knows.
func token(t string) string {
	if t == "" {
		return "0000000000000000"
	}
	return t
}

// debugColumns prints what the kernel keeps of a connection from what stands in the two DMBs: what is prepared here is sent
// at once. In a merged buffer its space is free again when the peer has read, in a separate one when it is sent.
func debugColumns(b *strings.Builder, c *tree.Conn) {
	var rx, tx tree.Header
	if c.RX != nil {
		rx = *c.RX
	}
	if c.TX != nil {
		tx = *c.TX
	}
	fin := rx.Consumer
	if c.Sndbuf == 0 {
		fin = tx.Producer
	}
	fmt.Fprintf(b, " %s  %08x %08x %08x %08x ", c.Shutdown, c.Number, c.Sndbuf, c.Rcvbuf, c.Peerbuf)
	fmt.Fprintf(b, "%s %s %02x:%02x   ", cursor(rx.Producer), cursor(rx.Consumer), rx.ProducerFlags, rx.StateFlags)
	fmt.Fprintf(b, "%s %s %02x:%02x   ", cursor(tx.Producer), cursor(tx.Consumer), tx.ProducerFlags, tx.StateFlags)
	fmt.Fprintf(b, "%s %s %s ", cursor(tx.Producer), cursor(tx.Producer), cursor(fin))
}

func cursor(c tree.Cursor) string { return fmt.Sprintf("%04x:%08x", c.Wrap, c.Count) }
