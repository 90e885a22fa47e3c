// SPDX-License-Identifier: Apache-2.0

package libsmc

import (
	"net"
	"net/netip"
	"syscall"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// control calls f with a socket's descriptor and returns its error.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// ask returns what a connection's peer has announced.
func ask(tcp *net.TCPConn) (a smcopt.Answer, err error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return a, err
	}
	err = control(raw, func(fd int) (err error) {
		a, err = smcopt.Ask(fd)
		return err
	})
	return a, err
}

// plainSYN reports whether the client of an accepted connection has surely not announced SMC.
func plainSYN(tcp *net.TCPConn) (plain bool) {
	raw, err := tcp.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { plain = smcopt.PlainSYN(int(fd)) })
	}
	return plain
}

// addrPort is an address as a slot has it.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}
