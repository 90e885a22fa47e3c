// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// connectsOften makes forty connections in a row, half of them without waiting, and keeps two of each half, and a UDP socket; then it lets a
// connect be refused; then it connects once more. Between these it waits for a line.
const connectsOften = `
import select, socket, sys
to = ("127.0.0.1", int(sys.argv[1]))
def connect(wait):
    s = socket.socket()
    if wait:
        s.connect(to)
        return s
    s.setblocking(False)
    s.connect_ex(to)
    select.select([], [s], [])
    assert s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    return s
def done(what):
    print(what, flush=True)
    sys.stdin.readline()
kept = [[connect(wait) for _ in range(20)][-2:] for wait in (True, False)]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(to)
done("connected")
kept = []
try:
    connect(True)
except ConnectionRefusedError:
    done("refused")
s = connect(True)
s.sendall(b"hello\n")
print(s.recv(6), flush=True)
sys.stdin.readline()
`

// TestRunPlainServer: a client that connects to a plain server time and again, and so does not ask it every time. What stats and conns say of
// each connection is the same; and a server that comes to speak SMC is heard.
func TestRunPlainServer(t *testing.T) {
	need(t, "socat", "python3")
	d := mountSMC(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	before := d.handshakes()
	client := d.command(underRun, "python3", "-c", connectsOften, port)
	var says, errors logBuffer
	client.Stdout, client.Stderr = &says, &errors
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Process.Kill(); client.Wait() })
	hears := func(what string) {
		t.Helper()
		waitFor(t, "the client", func() error {
			if !strings.Contains(says.String(), what) {
				return fmt.Errorf("it says %q, and\n%s", &says, &errors)
			}
			return nil
		})
	}

	hears("connected")
	counted := d.handshakes().since(before)
	if want := map[string]int{smc.DeclPeerNoSMC.String(): 40}; !maps.Equal(counted.ClientFallback, want) || counted.ClientErrors != 0 {
		t.Errorf("counted %+v, want the fallbacks %v", counted, want)
	}
	conns := d.connsTo(port)
	if len(conns) != 4 {
		t.Errorf("conns has %d connections, want 4: %+v", len(conns), conns)
	}
	for _, c := range conns {
		if c.Mode != tree.ModeTCP || smc.DeclineCode(c.Reason) != smc.DeclPeerNoSMC || c.Local.Addr() != c.Peer.Addr() ||
			c.Local.Port() == 0 || c.Peer.String() != l.Addr().String() || c.Inode == 0 {
			t.Errorf("conns has %+v", c)
		}
	}

	l.Close()
	io.WriteString(in, "\n")
	hears("refused")
	d.start(underRun, "socat", "TCP-LISTEN:"+port+",bind=127.0.0.1,reuseaddr", "EXEC:cat")
	listening(t, port)
	d.wantSMC(1, func() {
		io.WriteString(in, "\n")
		hears("hello")
		d.wantBothEnds(port, 1)
	})
	in.Close()
	if err := client.Wait(); err != nil {
		t.Errorf("the client: %v\n%s", err, &errors)
	}
}
