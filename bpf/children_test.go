// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// The kernel takes microseconds to make and free a socket's storage, so accepted sockets have it only if they need it.
func TestStorageOfChildren(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	l, at := listener(t, nil, loopback4, r.tag)
	for _, tags := range [][]smcopt.Tag{nil, {r.tag}} {
		dial(t, nil, at, tags...)
		if got := hasStorage(t, h, accept(t, l)); got != (tags != nil) {
			t.Errorf("an accepted socket has storage: %v; its client's tags: %v", got, tags)
		}
	}
	if n := outstanding(t, h); n != 0 {
		t.Errorf("%d handshakes are outstanding", n)
	}
}

func hasStorage(t *testing.T, h host, fd int) bool {
	t.Helper()
	var mark [24]byte
	err := pinnedMap(t, h, marksName).Lookup(int32(fd), &mark)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func stateOf(t *testing.T, h host, key uint32) (v uint64) {
	t.Helper()
	check(t, pinnedMap(t, h, stateName).Lookup(key, &v))
	return v
}

func outstanding(t *testing.T, h host) uint64 { return stateOf(t, h, outstandingKey) }

// wantUnknown accepts a connection of which the programs cannot tell what its client was told, and looks at what they say
// instead, and at the SYN.
func wantUnknown(t *testing.T, l int, silent bool) {
	t.Helper()
	s := accept(t, l)
	wantAskError(t, "server", s, unix.ENOTCONN)
	if got := smcopt.Silent(s); got != silent {
		t.Errorf("the SYN announced nothing: %v, want %v", got, silent)
	}
}

// wantTold checks that a library finds an accepted socket plain where the programs are in doubt of what they have missed: by their
// answer or by the SYN.
func wantTold(t *testing.T, who string, s int) {
	t.Helper()
	got, err := ask(s)
	if got == plain && err == nil {
		return
	}
	if !errors.Is(err, unix.ENOTCONN) || !smcopt.Silent(s) {
		t.Errorf("%s: %v (%v), and its SYN does not tell", who, got.State, err)
	}
}

// A socket whose client was told SMC, and for whose storage there is no memory, does not pass for plain.
func TestNoMemoryForChild(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	n := newNetns(t)
	l, at := listener(t, n, loopback4, r.tag)
	c := n.socket(t, loopback4)
	mark(t, c, r.tag)
	sysctl(t, n, "net.core.optmem_max", "1")
	dial(t, n, at)
	wantServer(t, "server of a plain client, before", accept(t, l), plain)
	check(t, connect(c, at))
	wantAnswer(t, "client", c, smc(r.tag))
	wantUnknown(t, l, false)
	dial(t, n, at)
	wantUnknown(t, l, true)
	// Those that cannot come from a listener are still known to have no answer.
	wantAskError(t, "a new socket", n.socket(t, loopback4), unix.ENODATA)
	plainListener, _ := listener(t, n, loopback4)
	wantAskError(t, "a listener", plainListener, unix.ENODATA)
}

// While the programs are not attached, a handshake that they have answered can end.
func TestMissedHandshake(t *testing.T) {
	for _, answered := range []bool{false, true} {
		t.Run(fmt.Sprintf("answered before %v", answered), func(t *testing.T) {
			h := newHost(t)
			r := register(t, h, 1)
			n := newNetns(t)
			f := newFakeHost(t, n)
			l, to := listener(t, n, f.ours, r.tag)
			syn := segment{from: f.at, to: to, seq: 1, flags: flagSYN, options: mss}
			if answered {
				syn.options = ourOption(1, r.tag)
			}
			f.send(syn)
			synack := f.receive(flagSYN | flagACK)
			if got := outstanding(t, h) != 0; got != answered {
				t.Errorf("outstanding handshakes: %v, want %v", got, answered)
			}
			check(t, h.detach(attachments[0]))
			f.send(reply(synack, flagACK))
			wantReadable(t, l)
			register(t, h, 2)
			wantSet(t, h, true)
			if answered {
				wantUnknown(t, l, false)
				dial(t, n, to)
				wantUnknown(t, l, true)
			} else {
				wantServer(t, "server", accept(t, l), plain)
			}
		})
	}
}

// wantReadable waits until somebody waits to be accepted.
func wantReadable(t *testing.T, l int) {
	t.Helper()
	eventually(t, "nobody waits to be accepted", func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}, 0)
		return n == 1 && err == nil
	})
}

// Moving the programs takes them away for a moment, in which a handshake can be missed.
func TestMissedWhileMoved(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	rest(t, r, true)
	container := inContainer(t, h)
	c := register(t, container, 2)
	l, at := listener(t, nil, loopback4, c.tag)
	dial(t, nil, at)
	wantServer(t, "server, before", accept(t, l), plain)
	use(t, r)
	defer done(t, r, true)
	dial(t, nil, at)
	wantUnknown(t, l, true)
}

// A flood of half-open handshakes drives the notes of others out: the saved SYN stands in.
func TestFlood(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	n := newNetns(t)
	for _, s := range [][2]string{{"net.core.somaxconn", "100000"}, {"net.ipv4.tcp_max_syn_backlog", "100000"}, {"net.ipv4.tcp_syncookies", "0"}} {
		sysctl(t, n, s[0], s[1])
	}
	f := newFakeHost(t, n)
	l, to := bound(t, n, f.ours)
	mark(t, l, r.tag)
	check(t, unix.Listen(l, 100000))
	syn := segment{from: f.at, to: to, seq: 1, flags: flagSYN, options: ourOption(1, r.tag)}
	f.send(syn)
	synack := f.receive(flagSYN | flagACK)
	answered := pinnedMap(t, h, answeredName)
	var victim, tag uint64
	check(t, answered.NextKey(nil, &victim))

	const room = 16384
	sent := 0
	for ; answered.Lookup(&victim, &tag) == nil; sent++ {
		if sent == 1000 && stateOf(t, h, floodedKey) != 0 {
			t.Error("a thousand handshakes count as a flood")
		}
		if sent > 3*room {
			t.Fatal("nothing is driven out")
		}
		syn.from = netip.AddrPortFrom(f.at.Addr(), uint16(10000+sent))
		f.send(syn)
	}
	t.Logf("driven out by %d", sent)
	if stateOf(t, h, floodedKey) == 0 {
		t.Error("an answer was forgotten, and this is no flood")
	}
	f.send(reply(synack, flagACK))
	wantAnswer(t, "server", accept(t, l), smc(r.tag))
	handshake := func(port uint16, options []byte) {
		from := netip.AddrPortFrom(f.at.Addr(), port)
		f.send(segment{from: from, to: to, seq: 1, flags: flagSYN, options: options})
		for synack = f.receive(flagSYN | flagACK); synack.to != from; {
			synack = f.receive(flagSYN | flagACK)
		}
		f.send(reply(synack, flagACK))
	}
	handshake(9000, mss)
	wantServer(t, "server of a plain client in the flood", accept(t, l), plain)

	// In doubt besides, an answer that can have been forgotten is not said to be plain.
	check(t, doubt(pinnedMap(t, h, stateName)))
	handshake(9001, mss)
	wantUnknown(t, l, true)
	handshake(9002, ourOption(1, testTag(9)))
	wantUnknown(t, l, false)
	sysctl(t, n, "net.ipv4.tcp_syncookies", "2")
	handshake(9003, mss)
	wantAnswer(t, "server of a client by a SYN cookie", accept(t, l), plain)
}

// A child that is told plain where others are in doubt is not waited for: that it is not asked about means nothing.
func TestRestAfterDoubt(t *testing.T) {
	h := newHost(t)
	r := register(t, h, 1)
	use(t, r)
	n := newNetns(t)
	sysctl(t, n, "net.ipv4.tcp_syncookies", "2")
	check(t, doubt(pinnedMap(t, h, stateName)))
	l, at := listener(t, n, loopback4, r.tag)
	dial(t, n, at)
	accept(t, l)
	unmark(t, l)
	done(t, r, true)
	rest(t, r, true)
	wantAttached(t, h, false)
}

// With few CPUs half the room is safe, with very many none.
func TestSafeOutstanding(t *testing.T) {
	for _, c := range []struct {
		room uint32
		cpus int
		want uint64
	}{{16384, 1, 8064}, {16384, 2, 8000}, {16384, 64, 4032}, {16384, 127, 0}, {16384, 4096, 0}} {
		if got := safeOutstanding(c.room, c.cpus); got != c.want {
			t.Errorf("%d entries, %d CPUs: %d, want %d", c.room, c.cpus, got, c.want)
		}
	}
}
