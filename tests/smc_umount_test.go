// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"testing"
	"time"
)

// TestListenerAfterUmount: a listener outlives the device that it was marked for, and the programs of the last one, and serves
// plain clients at once.
func TestListenerAfterUmount(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	talkPlainlyClose(t, a, b)
	idleHeld(t, d, client, server)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	for range 10 {
		for _, how := range []sockets{plain, overSMC} {
			x := client.MustDial(how, "tcp", l.Address)
			talkPlainly(t, x, l.MustAccept())
		}
		time.Sleep(moment)
	}
}
