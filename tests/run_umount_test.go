// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"strings"
	"testing"
)

// keeper has connections to itself, ends all but the first few that it is told, listens on, and makes no call of sockets any more.
const keeper = `
import socket, sys, time
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(50)
pairs = []
for i in range(20):
    c = socket.create_connection(l.getsockname()); s, _ = l.accept(); c.sendall(b"x"); s.recv(1); pairs.append((c, s))
for c, s in pairs[int(sys.argv[1]):]: c.close(); s.close()
print("done", flush=True)
time.sleep(1000)
`

// TestRunUmountIdle: what a program keeps of connections that have ended, and its listener, are in nobody's way, also if it sleeps. A
// connection is.
func TestRunUmountIdle(t *testing.T) {
	need(t, "python3")
	for _, kept := range []string{"0", "1"} {
		d := mountSMC(t)
		p := d.start(underRun, "python3", "-c", keeper, kept)
		waitFor(t, "the connections to end", func() error {
			if !strings.Contains(p.out.String(), "done") {
				return errors.New("they have not")
			}
			return nil
		})
		if kept == "0" {
			command(t, "ismfs", "umount", d.Point).want(t, 0)
			command(t, "ismfs", "umount", d.Point).want(t, 7, d.Point)
			p.kill() // its files are the daemon's until it lets go of them
			d.wantOrderlyEnd()
		} else {
			command(t, "ismfs", "umount", d.Point).want(t, 6, "python3")
			p.kill()
			d.WantCount(0)
		}
	}
}

// TestRunUmountListener: one that waits in accept and has had no connection yet is not, either.
func TestRunUmountListener(t *testing.T) {
	need(t, "python3")
	d := mountSMC(t)
	port := freePort(t)
	d.start(underRun, "python3", "-c", `
import socket, sys
l = socket.socket(); l.bind(("127.0.0.1", int(sys.argv[1]))); l.listen(50); l.accept()`, port)
	listening(t, port)
	command(t, "ismfs", "umount", d.Point).want(t, 0)
	d.wantOrderlyEnd()
}
