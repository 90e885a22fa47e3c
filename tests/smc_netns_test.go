// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/libsmc"
)

// A netns is a network namespace with a thread in it. It goes, with the devices and rules in it, with its last process.
type netns struct {
	t    *testing.T
	jobs chan func()
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{t, make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		ready <- err
		for job := range n.jobs {
			job()
		}
		// Clients end with the thread that started them, and that can have been this one: it must not end with the goroutine.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	t.Cleanup(func() { close(n.jobs) })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// ownNetns is the test's own namespace.
func ownNetns(t *testing.T) *netns {
	n := &netns{t, make(chan func())}
	go func() {
		for job := range n.jobs {
			job()
		}
	}()
	t.Cleanup(func() { close(n.jobs) })
	return n
}

// do calls f on a thread in the namespace.
func (n *netns) do(f func() error) {
	n.t.Helper()
	done := make(chan error, 1)
	n.jobs <- func() {
		ended := fmt.Errorf("it ended in the namespace")
		defer func() { done <- ended }() // also after a t.Fatal, which ends that goroutine
		ended = f()
	}
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

func (n *netns) run(name string, args ...string) {
	n.do(func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
		}
		return nil
	})
}

// sysctl sets one of net.….
func (n *netns) sysctl(name, value string) {
	n.t.Helper()
	n.do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	})
}

// startPeer is startPeer in the namespace.
func (n *netns) startPeer(point string, change ...func(*exec.Cmd)) (p *peer) {
	n.t.Helper()
	n.do(func() error {
		p = startPeer(n.t, point, change...)
		return nil
	})
	return p
}

// startBound starts a peer in a mount namespace of its own as well: there the tree is bound to another directory, and not to
// be seen where it was mounted.
func (n *netns) startBound(d *device) *peer {
	n.t.Helper()
	bound, empty := tempDir(n.t), tempDir(n.t)
	p := n.startPeer(bound, inNamespaces(unix.CLONE_NEWNS))
	p.Mount("", "/", unix.MS_REC|unix.MS_PRIVATE)
	p.Mount(d.Point, bound, unix.MS_BIND)
	p.Mount(empty, d.Point, unix.MS_BIND)
	return p
}

// joinNetns connects two namespaces by a pair of veth devices with these addresses.
func joinNetns(a *netns, aDev string, aAddrs []string, b *netns, bDev string, bAddrs []string) {
	b.t.Helper()
	var path string
	b.do(func() error {
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		return nil
	})
	a.run("ip", "link", "add", aDev, "type", "veth", "peer", "name", bDev, "netns", path)
	for _, end := range []struct {
		*netns
		dev   string
		addrs []string
	}{{a, aDev, aAddrs}, {b, bDev, bAddrs}} {
		for _, addr := range end.addrs {
			args := []string{"addr", "add", addr, "dev", end.dev}
			if strings.Contains(addr, ":") {
				args = append(args, "nodad")
			}
			end.run("ip", args...)
		}
		end.run("ip", "link", "set", end.dev, "up")
	}
}

// connectBy connects to a listener by an address that is not its own.
func connectBy(client *peer, l *peerListener, address string) (a, b *peerConn) {
	client.t.Helper()
	a = client.MustDial(overSMC, "tcp", address)
	b = l.MustAccept()
	if err := a.Handshake(0); err != nil {
		client.t.Fatalf("handshake: %v", err)
	}
	return a, b
}

// wantWorking fails the test unless a and b are an SMC-D connection that moves bytes both ways.
func wantWorking(d *device, a, b *peerConn) {
	d.t.Helper()
	wantSMCD(d, a, b)
	const n = 300 << 10
	d.wantGrowth(2*n, func() { exchange(a, b, n) })
}

// TestNamespaces: each process has network and mount namespaces of its own, and the tree by a bind mount.
func TestNamespaces(t *testing.T) {
	d := mountSMC(t)
	left, right := newNetns(t), newNetns(t)
	joinNetns(left, "veth0", []string{"10.77.0.1/24", "2001:db8:77::1/64"},
		right, "veth0", []string{"10.77.0.2/24", "2001:db8:77::2/64"})
	client, server := left.startBound(d), right.startBound(d)
	for _, address := range []string{"10.77.0.2:7000", "[2001:db8:77::2]:7000"} {
		t.Run(address, func(t *testing.T) {
			l := server.Listen(overSMC, "tcp", address)
			defer l.Close()
			a, b := connectTo(t, client, overSMC, l)
			wantWorking(d, a, b)
			wantConns(d, a, b)
			other, otherEnd := connectTo(t, client, overSMC, l) // a second one, in the same link group
			wantWorking(d, other, otherEnd)
			if g := other.Info().LinkGroup; g != a.Info().LinkGroup {
				t.Errorf("link group %x, the first connection has %x", g, a.Info().LinkGroup)
			}
		})
	}
}

// wantConns fails the test unless conns has both ends, with the pid and network namespace of their processes.
func wantConns(d *device, ends ...*peerConn) {
	d.t.Helper()
	lines := d.Conns()
	for _, c := range ends {
		found := false
		for _, f := range lines {
			process := f[2] == strconv.Itoa(c.PID()) && f[3] == netNS(d.t, c.PID())
			found = found || process && f[0] == "ACTIVE" && f[4] == c.Local && f[5] == c.Remote && f[6] == "SMCD"
		}
		if !found {
			d.t.Errorf("conns has not %s to %s of process %d in network namespace %s:\n%s",
				c.Local, c.Remote, c.PID(), netNS(d.t, c.PID()), d.Read("conns"))
		}
	}
}

// TestAddressTranslation: neither end knows the other's address.
func TestAddressTranslation(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is missing (Debian: nftables)")
	}
	d := mountSMC(t)
	left, router, right := newNetns(t), newNetns(t), newNetns(t)
	joinNetns(left, "veth0", []string{"10.77.1.1/24", "2001:db8:1::1/64"},
		router, "left", []string{"10.77.1.254/24", "2001:db8:1::fe/64"})
	joinNetns(right, "veth0", []string{"10.77.2.1/24", "2001:db8:2::1/64"},
		router, "right", []string{"10.77.2.254/24", "2001:db8:2::fe/64"})
	router.sysctl("net.ipv4.ip_forward", "1")
	router.sysctl("net.ipv6.conf.all.forwarding", "1")
	router.run("nft", `table inet nat {
		chain pre {
			type nat hook prerouting priority -100
			ip daddr 10.77.1.254 tcp dport 80 dnat ip to 10.77.2.1:7000
			ip6 daddr 2001:db8:1::fe tcp dport 80 dnat ip6 to [2001:db8:2::1]:7000
		}
		chain post {
			type nat hook postrouting priority 100
			oifname "right" masquerade
		}
	}`)
	client, server := left.startBound(d), right.startBound(d)
	for listen, address := range map[string]string{
		"10.77.2.1:7000": "10.77.1.254:80", "[2001:db8:2::1]:7000": "[2001:db8:1::fe]:80",
	} {
		t.Run(address, func(t *testing.T) {
			l := server.Listen(overSMC, "tcp", listen)
			defer l.Close()
			a, b := connectBy(client, l, address)
			if a.Local == b.Remote || a.Remote == b.Local {
				t.Errorf("%s to %s and %s to %s: not translated", a.Local, a.Remote, b.Local, b.Remote)
			}
			wantWorking(d, a, b)
			wantConns(d, a, b)
		})
	}
}

// TestSameAddresses: two networks with the same addresses, and connections with the same ports at the same time.
func TestSameAddresses(t *testing.T) {
	d := mountSMC(t)
	const from, to = "10.77.0.1:40001", "10.77.0.2:7000"
	var a, b [2]*peerConn
	for i := range 2 {
		left, right := newNetns(t), newNetns(t)
		joinNetns(left, "veth0", []string{"10.77.0.1/24"}, right, "veth0", []string{"10.77.0.2/24"})
		client, server := left.startBound(d), right.startBound(d)
		l := server.Listen(overSMC, "tcp", to)
		r := client.mustDo("Places.DialFrom", PeerArgs{Network: from, Address: to})
		a[i], b[i] = client.newConn(r), l.MustAccept()
		wantError(t, "handshake", a[i].Handshake(0), nil)
		if a[i].Local != from || b[i].Remote != from || a[i].Remote != to || b[i].Local != to {
			t.Fatalf("%s to %s and %s to %s", a[i].Local, a[i].Remote, b[i].Local, b[i].Remote)
		}
	}
	d.wantGrowth(4<<20, func() {
		first := later(func() (int, error) { exchange(a[0], b[0], 1<<20); return 0, nil })
		exchange(a[1], b[1], 1<<20)
		first()
	})
	for i := range 2 {
		wantWorking(d, a[i], b[i])
		wantConns(d, a[i], b[i])
	}
}

// TestContainers: clients in containers and a server on the host, which hears them on a bridge's address.
func TestContainers(t *testing.T) {
	d := mountSMC(t)
	server := startPeer(t, d.Point)
	const all = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	i := 0
	for name, container := range map[string]func(*exec.Cmd){
		"a user":           func(cmd *exec.Cmd) { asUser(1000)(cmd); inNamespaces(all)(cmd) },
		"root":             inContainer(all),
		"root of a userns": inUserNamespace(1001, all),
	} {
		i++
		t.Run(name, func(t *testing.T) {
			n := newNetns(t)
			// The host's end has a name and addresses that a second run of this test beside it has not.
			id := os.Getpid()
			dev, net := fmt.Sprintf("ismt%x.%d", id, i), fmt.Sprintf("10.%d.%d.", 200+id>>6%50, id<<2%256)
			joinNetns(n, "veth0", []string{net + "2/30"}, ownNetns(t), dev, []string{net + "1/30"})
			client := n.startPeer(d.Point, container)
			l := server.Listen(overSMC, "tcp", net+"1:0")
			defer l.Close()
			a, b := connectTo(t, client, overSMC, l)
			wantWorking(d, a, b)
			wantConns(d, a, b)
			if netNS(t, a.PID()) == netNS(t, b.PID()) {
				t.Error("the container has the host's network namespace")
			}
		})
	}
}

func init() { rpc.Register(Places{}) }

// Places are calls of a peer that only the tests of namespaces need.
type Places struct{}

// DialFrom connects from the address Network.
func (Places) DialFrom(a PeerArgs, r *PeerReply) error {
	d := libsmc.Dialer{Dialer: net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.Network))}}
	c, err := d.Dial("tcp", a.Address)
	if err == nil {
		keep(c, r)
	}
	return r.answer(err)
}
