// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
)

// echoServer echoes, each client in a thread.
const echoServer = `
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
    c.close()
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
`

// TestRunReuse: a Go program that has closed can have reserved space in the other end's DMB. Only when that has come back, and TCP is
// shut down, the DMB is used again.
func TestRunReuse(t *testing.T) {
	need(t, "python3")
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		peer, port := startPeer(t, d.Point), freePort(t)
		server := d.start(underRun, "python3", "-c", echoServer, port)
		listening(t, port)
		dial := func() (*peerConn, PeerInfo) {
			t.Helper()
			c := peer.MustDial(overSMC, "tcp", "127.0.0.1:"+port)
			echoed(c, 100_000)
			info := c.Info()
			if info.Mode != libsmc.SMCD {
				t.Errorf("%v", info)
			}
			return c, info
		}
		first, was := dial()
		wantError(t, "Reserve", first.simple("Apps.Fill", PeerArgs{Data: []byte("late")}), nil)
		wantError(t, "Close", first.Close(), nil)
		waitFor(t, "the server to close", func() error {
			for _, c := range d.connsTo(port) {
				if c.Role == "server" {
					return fmt.Errorf("it has a connection from %v", c.Peer)
				}
			}
			return nil
		})
		second, now := dial()
		if now.PeerToken == was.PeerToken {
			t.Error("a DMB is used again while space in it is reserved")
		}
		if err := first.simple("Apps.Commit", PeerArgs{N: 4}); err == nil {
			t.Error("Commit to nobody succeeds")
		}
		third, then := dial()
		if then.PeerToken != was.PeerToken {
			t.Error("the DMB is not used again when nothing is reserved any more")
		}
		for _, c := range []*peerConn{second, third} {
			wantError(t, "Close", c.Close(), nil)
		}
		d.wantNoneTo(port)
		server.kill()
		peer.CloseIdle()
		d.WantCount(0)
	})
}
