// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// fourCases connects SMC and plain clients to SMC and plain servers and looks at both answers of each connection. The
// connections to one listener are made in turns: a mark is a client's own.
func fourCases(t *testing.T, client, server *netns, at netip.Addr, tag smcopt.Tag) {
	for _, smcServer := range []bool{true, false} {
		var marks []smcopt.Tag
		if smcServer {
			marks = []smcopt.Tag{tag}
		}
		l, addr := listener(t, server, at, marks...)
		for i := range 6 {
			smcClient := i%2 == 0
			name := fmt.Sprintf("%v client SMC %v server SMC %v", at, smcClient, smcServer)
			var c int
			if smcClient {
				c = dial(t, client, addr, tag)
			} else {
				c = dial(t, client, addr)
			}
			s := accept(t, l)
			want := plain
			if smcClient && smcServer {
				want = smc(tag)
			}
			for range 2 { // the answer stays
				if smcClient {
					wantAnswer(t, name+": client", c, want)
				} else {
					wantAskError(t, name+": client", c, unix.ENODATA)
				}
				if smcServer {
					wantServer(t, name+": server", s, want)
				} else {
					wantAskError(t, name+": server", s, unix.ENODATA)
				}
			}
			transfer(t, c, s)
		}
	}
}

func TestFourCases(t *testing.T) {
	r := register(t, newHost(t), 1)
	for _, at := range []netip.Addr{loopback4, loopback6} {
		fourCases(t, nil, nil, at, r.tag)
	}
	transferMapped(t, r.tag)
}

// transferMapped is an IPv6 socket that speaks IPv4.
func transferMapped(t *testing.T, tag smcopt.Tag) {
	l, at := listener(t, nil, netip.IPv6Unspecified(), tag)
	c := dial(t, nil, netip.AddrPortFrom(loopback4, at.Port()), tag)
	s := accept(t, l)
	wantAnswer(t, "IPv4 client", c, smc(tag))
	wantAnswer(t, "IPv6 server of an IPv4 client", s, smc(tag))
}

func TestUnprivileged(t *testing.T) {
	r := register(t, newHost(t), 1)
	n := newNetns(t)
	n.do(t, func() error { // that thread alone, and for good
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, e := unix.RawSyscall(call, 65534, 65534, 65534); e != 0 {
				return e
			}
		}
		return nil
	})
	n.do(t, func() error {
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP); err != unix.EPERM {
			t.Errorf("a raw socket gives %v: the thread still has privileges", err)
		}
		return nil
	})
	// In that namespace and as that user, the calls themselves, too.
	n.do(t, func() error {
		fourCases(t, nil, nil, loopback4, r.tag)
		fourCases(t, nil, nil, loopback6, r.tag)
		return nil
	})
}

func TestTwoNamespaces(t *testing.T) {
	r := register(t, newHost(t), 1)
	a, b := newNetns(t), newNetns(t)
	join(t, a, "ve0", "10.1.0.1/24", b, "ve0", "10.1.0.2/24")
	a.run(t, "ip", "addr", "add", "fd00::1/64", "dev", "ve0", "nodad")
	b.run(t, "ip", "addr", "add", "fd00::2/64", "dev", "ve0", "nodad")
	fourCases(t, a, b, netip.MustParseAddr("10.1.0.2"), r.tag)
	fourCases(t, a, b, netip.MustParseAddr("fd00::2"), r.tag)
}

// client 10.1.0.1 -- 10.1.0.2 router 10.2.0.1 -- 10.2.0.2 server; the router sends its own port 80 on to the server.
func TestDNAT(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is missing (Debian: nftables)")
	}
	r := register(t, newHost(t), 1)
	client, router, server := newNetns(t), newNetns(t), newNetns(t)
	join(t, client, "ve0", "10.1.0.1/24", router, "ve0", "10.1.0.2/24")
	join(t, router, "ve1", "10.2.0.1/24", server, "ve0", "10.2.0.2/24")
	server.run(t, "ip", "route", "add", "default", "via", "10.2.0.1")
	sysctl(t, router, "net.ipv4.ip_forward", "1")

	l, at := listener(t, server, netip.MustParseAddr("10.2.0.2"), r.tag)
	router.run(t, "nft", fmt.Sprintf(`
		table ip nat {
			chain in { type nat hook prerouting priority -100; tcp dport 80 dnat to %s; }
			chain out { type nat hook postrouting priority 100; masquerade; }
		}`, at))
	for _, smcClient := range []bool{true, false} {
		to := netip.MustParseAddrPort("10.1.0.2:80")
		var c int
		want := plain
		if smcClient {
			c, want = dial(t, client, to, r.tag), smc(r.tag)
			wantAnswer(t, "client", c, want)
		} else {
			c = dial(t, client, to)
		}
		s := accept(t, l)
		wantServer(t, "server", s, want)
		transfer(t, c, s)
	}
}

// Under SYN cookies nothing is remembered of a SYN: plain, and both know it. Where the programs have missed handshakes a server
// would look at the SYN, and there is none.
func TestSYNCookies(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	n := newNetns(t)
	sysctl(t, n, "net.ipv4.tcp_syncookies", "2")
	for _, inDoubt := range []bool{false, true} {
		if inDoubt {
			check(t, doubt(pinnedMap(t, h, stateName)))
		}
		for _, at := range []netip.Addr{loopback4, loopback6} {
			l, addr := listener(t, n, at, r.tag)
			for _, tags := range [][]smcopt.Tag{nil, {r.tag}} {
				c := dial(t, n, addr, tags...)
				s := accept(t, l)
				if tags != nil {
					wantAnswer(t, "client", c, plain)
				}
				if inDoubt {
					wantAnswer(t, "server in doubt", s, plain)
				} else {
					wantServer(t, "server", s, plain)
				}
				transfer(t, c, s)
			}
		}
	}
}

// TCP Fast Open brings data before the handshake ends: plain.
func TestFastOpen(t *testing.T) {
	r := register(t, newHost(t), 1)
	n := newNetns(t)
	sysctl(t, n, "net.ipv4.tcp_fastopen", "3")
	l, addr := listener(t, n, loopback4, r.tag)
	if err := unix.SetsockoptInt(l, unix.SOL_TCP, unix.TCP_FASTOPEN, 16); err != nil {
		t.Fatal(err)
	}
	for _, round := range []string{"asks for a cookie", "has one"} {
		c := n.socket(t, loopback4)
		mark(t, c, r.tag)
		if err := unix.Sendto(c, []byte{7}, unix.MSG_FASTOPEN, sockaddr(addr)); err != nil {
			t.Fatal(round, err)
		}
		s := accept(t, l)
		b := make([]byte, 8)
		if k, err := unix.Read(s, b); k != 1 || err != nil {
			t.Fatal(round, k, err)
		}
		wantAnswer(t, "client "+round, c, plain)
		wantServer(t, "server "+round, s, plain)
	}
}

func TestTwoDevices(t *testing.T) {
	h := newHost(t)
	one, two := register(t, h, 1), register(t, h, 2)
	l, at := listener(t, nil, loopback4, one.tag)
	c := dial(t, nil, at, two.tag)
	s := accept(t, l)
	// Both are of this host: the server's answer to the Proposal is a Decline.
	wantAnswer(t, "client", c, smc(two.tag))
	wantAnswer(t, "server", s, smc(two.tag))
}

func TestMarkRefused(t *testing.T) {
	r := register(t, newHost(t), 1)
	fresh := func(int) {}
	for _, c := range []struct {
		name string
		kind [3]int
		to   func(fd int)
		tag  smcopt.Tag
		want error
	}{
		{"TCP", [3]int{unix.AF_INET, unix.SOCK_STREAM, 0}, fresh, r.tag, nil},
		{"a tag of no device here", [3]int{unix.AF_INET, unix.SOCK_STREAM, 0}, fresh, testTag(9), unix.ENODEV},
		{"no tag", [3]int{unix.AF_INET, unix.SOCK_STREAM, 0}, fresh, smcopt.Tag{}, unix.ENODEV},
		{"UDP", [3]int{unix.AF_INET, unix.SOCK_DGRAM, 0}, fresh, r.tag, unix.ENOPROTOOPT},
		{"Unix", [3]int{unix.AF_UNIX, unix.SOCK_STREAM, 0}, fresh, r.tag, unix.EOPNOTSUPP},
		{"MPTCP", [3]int{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, fresh, r.tag, unix.ENOPROTOOPT},
		{"connected", [3]int{unix.AF_INET, unix.SOCK_STREAM, 0}, func(fd int) {
			_, at := listener(t, nil, loopback4)
			if err := connect(fd, at); err != nil {
				t.Fatal(err)
			}
		}, r.tag, unix.EISCONN},
	} {
		fd, err := unix.Socket(c.kind[0], c.kind[1], c.kind[2])
		if err != nil {
			t.Fatal(c.name, err)
		}
		c.to(fd)
		if err := tryMark(fd, c.tag); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		unix.Close(fd)
	}

	fd := (*netns)(nil).socket(t, loopback4)
	wantAskError(t, "never marked", fd, unix.ENODATA)
	mark(t, fd, r.tag)
	wantAskError(t, "not connected", fd, unix.ENOTCONN)
	if err := setWord(fd, 2, r.tag); err != unix.EINVAL {
		t.Error("an unknown verb:", err)
	}
	if err := unix.SetsockoptInt(fd, smcopt.Level, testOption, 1); err != unix.EINVAL {
		t.Error("a short value:", err)
	}
	if _, err := unix.GetsockoptInt(fd, smcopt.Level, testOption); err != unix.EINVAL {
		t.Error("room for a short value:", err)
	}
	_, err := unix.GetsockoptInt(fd, smcopt.Level, 1)
	if err != unix.EOPNOTSUPP {
		t.Error("another option of that level:", err)
	}
}

// A socket that fails to connect, and then does, has the answer of the last time.
func TestReconnect(t *testing.T) {
	r := register(t, newHost(t), 1)
	l, at := listener(t, nil, loopback4, r.tag)
	_, plainAt := listener(t, nil, loopback4)
	_, closed := bound(t, nil, loopback4)
	c := (*netns)(nil).socket(t, loopback4)
	mark(t, c, r.tag)
	if err := connect(c, closed); err != unix.ECONNREFUSED {
		t.Fatal(err)
	}
	wantAskError(t, "refused", c, unix.ENOTCONN)
	for _, to := range []struct {
		at   netip.AddrPort
		want smcopt.Answer
	}{{at, smc(r.tag)}, {plainAt, plain}, {at, smc(r.tag)}} {
		if err := connect(c, to.at); err != nil {
			t.Fatal(err)
		}
		wantAnswer(t, to.at.String(), c, to.want)
		disconnect(t, c)
	}
	for range 2 {
		wantAnswer(t, "server", accept(t, l), smc(r.tag))
	}
}

func disconnect(t *testing.T, fd int) {
	t.Helper()
	var unspec [16]byte
	if err := connectRaw(fd, unspec[:]); err != 0 {
		t.Fatal("disconnect:", err)
	}
}

// A socket that connects to itself: SYN meets SYN, nobody answers one.
func TestSelfConnect(t *testing.T) {
	r := register(t, newHost(t), 1)
	fd, at := bound(t, nil, loopback4)
	mark(t, fd, r.tag)
	if err := connect(fd, at); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, "self-connected", fd, plain)
	transfer(t, fd, fd)
}

func TestLiveListener(t *testing.T) {
	h := newHost(t)
	one, two := register(t, h, 1), register(t, h, 2)
	l, at := listener(t, nil, loopback4)
	wantAskError(t, "listener", l, unix.ENODATA)
	client := func(tag smcopt.Tag, want smcopt.Answer) (s int) {
		t.Helper()
		c := dial(t, nil, at, tag)
		wantAnswer(t, "client", c, want)
		return accept(t, l)
	}

	s := client(one.tag, plain)
	wantAskError(t, "before the mark", s, unix.ENODATA)

	mark(t, l, one.tag)
	wantAnswer(t, "listener", l, smcopt.Answer{State: smcopt.Listener, Tag: one.tag})
	s = client(one.tag, smc(one.tag))
	wantAnswer(t, "marked", s, smc(one.tag))

	mark(t, l, two.tag)
	wantAnswer(t, "listener", l, smcopt.Answer{State: smcopt.Listener, Tag: two.tag})
	s = client(two.tag, smc(two.tag))
	wantAnswer(t, "marked anew", s, smc(two.tag))

	c := dial(t, nil, at, two.tag)
	unmark(t, l)
	wantAskError(t, "un-marked listener", l, unix.ENODATA)
	wantAnswer(t, "client before the un-mark", c, smc(two.tag))
	wantAnswer(t, "in the queue at the un-mark", accept(t, l), smc(two.tag))
	s = client(two.tag, plain)
	wantServer(t, "un-marked", s, plain)

	mark(t, l, one.tag)
	s = client(one.tag, smc(one.tag))
	wantAnswer(t, "marked again", s, smc(one.tag))

	// What it has set is undone, unless the program had set it itself.
	unmark(t, l)
	if v, err := unix.GetsockoptInt(l, unix.SOL_TCP, unix.TCP_SAVE_SYN); v != 0 || err != nil {
		t.Error("TCP_SAVE_SYN stays:", v, err)
	}
	if err := unix.SetsockoptInt(l, unix.SOL_TCP, unix.TCP_SAVE_SYN, 1); err != nil {
		t.Fatal(err)
	}
	mark(t, l, one.tag)
	unmark(t, l)
	if v, err := unix.GetsockoptInt(l, unix.SOL_TCP, unix.TCP_SAVE_SYN); v != 1 || err != nil {
		t.Error("TCP_SAVE_SYN of the program's own is gone:", v, err)
	}
}

// A listener shared by several sockets of one port: each has its own mark.
func TestReusePort(t *testing.T) {
	r := register(t, newHost(t), 1)
	first := (*netns)(nil).socket(t, loopback4)
	reuse(t, first)
	at := netip.AddrPortFrom(loopback4, 42311)
	if err := unix.Bind(first, sockaddr(at)); err != nil {
		t.Fatal(err)
	}
	second := (*netns)(nil).socket(t, loopback4)
	reuse(t, second)
	if err := unix.Bind(second, sockaddr(at)); err != nil {
		t.Fatal(err)
	}
	mark(t, first, r.tag)
	listen(t, first)
	listen(t, second)
	for range 16 {
		c := dial(t, nil, at, r.tag)
		got, err := ask(c)
		if err != nil {
			t.Fatal(err)
		}
		if got == smc(r.tag) {
			wantAnswer(t, "marked", accept(t, first), got)
		} else {
			wantAskError(t, "not marked", accept(t, second), unix.ENODATA)
		}
	}
}

func reuse(t *testing.T, fd int) {
	t.Helper()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
}

// The connections of many at once do not get each other's answers.
func TestConcurrent(t *testing.T) {
	r := register(t, newHost(t), 1)
	l, at := listener(t, nil, loopback4, r.tag)
	done := make(chan string)
	const clients, rounds = 8, 50
	for i := range clients {
		go func() {
			var wrong []string
			for range rounds {
				wrong = append(wrong, oneClient(at, i%2 == 0, r.tag)...)
			}
			done <- strings.Join(wrong, "\n")
		}()
	}
	for range clients * rounds {
		s := accept(t, l)
		first := make([]byte, 1)
		if n, err := unix.Read(s, first); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		want := plain
		if first[0] == 's' {
			want = smc(r.tag)
		}
		wantServer(t, "server", s, want)
		hangUp(t, s)
	}
	for range clients {
		if wrong := <-done; wrong != "" {
			t.Error(wrong)
		}
	}
	runtime.KeepAlive(l)
}

func oneClient(at netip.AddrPort, isSMC bool, tag smcopt.Tag) (wrong []string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return []string{err.Error()}
	}
	defer unix.Close(fd)
	say := []byte{'p'}
	if isSMC {
		say[0] = 's'
		if err := tryMark(fd, tag); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if err := connect(fd, at); err != nil {
		return append(wrong, err.Error())
	}
	if isSMC {
		if a, err := ask(fd); err != nil || a != smc(tag) {
			wrong = append(wrong, fmt.Sprint("client: ", a, err))
		}
	}
	if _, err := unix.Write(fd, say); err != nil {
		wrong = append(wrong, err.Error())
	}
	return wrong
}
