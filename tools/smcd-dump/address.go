// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
)

// shortAddress is the width of smcss's address columns.
const shortAddress = 23

// address prints an address as smcss does: without brackets, and without -W shortened so that it fits and the port stays.
// Like smcss it takes one whose last twelve of sixteen bytes are zero for IPv4, so that :: is 0.0.0.0.
func (o *socketOptions) address(a netip.AddrPort) string {
	ip := a.Addr()
	if ip.Is6() {
		bytes := ip.As16()
		if [12]byte(bytes[4:]) == [12]byte{} {
			ip = netip.AddrFrom4([4]byte(bytes[:4]))
		}
	}
	text, port := ip.String(), fmt.Sprint(a.Port())
	if !o.wide && len(text)+1+len(port) > shortAddress {
		return text[:shortAddress-3-len(port)] + "..:" + port
	}
	return text + ":" + port
}
