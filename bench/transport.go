// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/ismfs/ismfs/libsmc"
)

// A transport is what carries the bytes, as --transports names it: smc, smc-copy, smc-zerocopy, tcp, tcp-clc, unix, c-ring or c-ring-copy, and for SMC
// after an @ what differs from the default, joined by +: a size of the buffers, a way of waiting and the pages of the buffers, as smc@1m+busy+huge.
type transport struct {
	Name     string `json:"name"`
	SMC      bool   `json:"smc"`
	Copy     bool   `json:"copy"`      // dmb_copy 1
	ZeroCopy bool   `json:"zero_copy"` // Borrow and Reserve in place of Read and Write
	Ring     bool   `json:"ring"`      // the bare ring in C, which is no socket
	CLC      bool   `json:"clc"`       // a handshake's messages first, for nothing: see clcConn
	Network  string `json:"network"`   // of package net
	Buffer   int    `json:"buffer"`    // of a connection, 0: libsmc's default

	Wait  libsmc.Wait `json:"wait"`
	Pages pages       `json:"pages,omitempty"`
}

var plainTransports = map[string]transport{
	"smc":          {SMC: true, Network: "tcp"},
	"smc-copy":     {SMC: true, Copy: true, Network: "tcp"},
	"smc-zerocopy": {SMC: true, ZeroCopy: true, Network: "tcp"},
	"tcp":          {Network: "tcp"},
	"tcp-clc":      {CLC: true, Network: "tcp"},
	"unix":         {Network: "unix"},
	"c-ring":       {Ring: true},
	"c-ring-copy":  {Ring: true, Copy: true},
}

// waits are the words for ways of waiting.
var waits = map[string]libsmc.Wait{
	libsmc.WaitAdaptive.String(): libsmc.WaitAdaptive,
	libsmc.WaitBusy.String():     libsmc.WaitBusy,
	libsmc.WaitBlocking.String(): libsmc.WaitBlocking,
}

// baseline is the transport to which ratios are taken.
const baseline = "tcp"

// parseTransport reads a transport's name.
func parseTransport(name string) (transport, error) {
	base, variant, varied := strings.Cut(name, "@")
	t, ok := plainTransports[base]
	if !ok {
		return t, fmt.Errorf("no transport %q: there are smc, smc-copy, smc-zerocopy, tcp, tcp-clc, unix, c-ring and c-ring-copy", base)
	}
	t.Name = name
	if !varied {
		return t, nil
	}
	if !t.SMC {
		return t, fmt.Errorf("transport %q: only smc transports have variants", name)
	}
	for word := range strings.SplitSeq(variant, "+") {
		if err := t.vary(word); err != nil {
			return t, fmt.Errorf("transport %q: %w", name, err)
		}
	}
	return t, nil
}

// vary takes one word of a variant.
func (t *transport) vary(word string) error {
	if wait, ok := waits[word]; ok {
		if t.Wait != libsmc.WaitDefault {
			return fmt.Errorf("%v and %v: a connection waits in one way", t.Wait, wait)
		}
		t.Wait = wait
		return nil
	}
	if _, ok := dmbTypes[pages(word)]; ok {
		if t.Pages != "" {
			return fmt.Errorf("%s and %s: a buffer has pages of one kind", t.Pages, word)
		}
		t.Pages = pages(word)
		return nil
	}
	if _, err := parseSize(word); err != nil {
		return fmt.Errorf("%q is neither adaptive, busy or blocking nor huge or base nor a size such as 64k or 1m", word)
	}
	size, err := parseBuffer(word)
	switch {
	case err != nil:
		return err
	case t.Buffer != 0:
		return fmt.Errorf("%s is a second size", word)
	}
	t.Buffer = size
	return nil
}

func parseTransports(names []string) ([]transport, error) {
	var all []transport
	for _, name := range names {
		t, err := parseTransport(name)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// listen listens as a program that has chosen this transport does.
func (t transport) listen() (net.Listener, error) {
	switch {
	case t.Network == "unix":
		return net.Listen("unix", "") // the kernel chooses an abstract name
	case t.SMC:
		lc := libsmc.ListenConfig{ReadBuffer: t.Buffer, Wait: t.Wait}
		return lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil && t.CLC {
		l = clcListener{l}
	}
	return l, err
}

// dial connects; check waits for the handshake.
func (t transport) dial(address string) (net.Conn, error) {
	if !t.SMC {
		c, err := net.Dial(t.Network, address)
		if err == nil && t.CLC {
			c = clcConn{c, true}
		}
		return c, err
	}
	d := libsmc.Dialer{ReadBuffer: t.Buffer, Wait: t.Wait}
	return d.Dial("tcp", address)
}

// errNotSMC is why a cell of SMC has no figures.
var errNotSMC = errors.New("the connection is not SMC-D")

// check waits for the handshake and refuses a connection that is not what the transport says.
func (t transport) check(c net.Conn) error {
	if p, ok := c.(clcConn); ok {
		return p.handshake()
	}
	if !t.SMC {
		return nil
	}
	s, ok := c.(*libsmc.Conn)
	if !ok {
		return fmt.Errorf("%w: it is a %T", errNotSMC, c)
	}
	if err := s.Handshake(context.Background()); err != nil {
		return err
	}
	info := s.Info()
	if info.Mode != libsmc.SMCD {
		return fmt.Errorf("%w: %v", errNotSMC, info)
	}
	if info.Copied != t.Copy {
		return fmt.Errorf("the connection's dmb_copy is %t, not %t: somebody has changed the device's", info.Copied, t.Copy)
	}
	return nil
}
