// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// TestBufferSizes: SMC_RCVBUF, Dialer.ReadBuffer and ListenConfig.ReadBuffer, as the kernel rounds SO_RCVBUF. Each side has its
// own.
func TestBufferSizes(t *testing.T) {
	d := mountSMC(t)
	server := startPeer(t, d.Point)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	size := func(c *peerConn) int { return c.Info().ReadBuffer + smc.CDCLen }
	check := func(client *peer, how func() *peerConn, want int) {
		t.Helper()
		a := how()
		b := l.MustAccept()
		wantError(t, "handshake", a.Handshake(0), nil)
		wantSMCD(d, a, b)
		if size(a) != want || size(b) != 64<<10 {
			t.Errorf("buffers of %d and %d bytes, want %d and %d", size(a), size(b), want, 64<<10)
		}
		d.wantGrowth(600<<10, func() { exchange(a, b, 300<<10) })
	}
	for _, row := range []struct {
		variable string
		want     int
	}{
		{"", 1 << 20}, {"16384", 16 << 10}, {"1", 16 << 10}, {"16385", 32 << 10}, {"32k", 32 << 10}, {"100000", 128 << 10},
		{"256K", 256 << 10}, {"512k", 512 << 10}, {"1m", 1 << 20}, {"7M", 1 << 20}, {"much", 1 << 20},
	} {
		client := startPeer(t, d.Point, withEnv("SMC_RCVBUF="+row.variable))
		check(client, func() *peerConn { return client.MustDial(overSMC, "tcp", l.Address) }, row.want)
		client.Kill()
	}
	client := startPeer(t, d.Point, withEnv("SMC_RCVBUF=32k"))
	for n, want := range map[int]int{0: 32 << 10, 1: 16 << 10, 200_000: 256 << 10, 1 << 30: 1 << 20} {
		check(client, func() *peerConn {
			return client.newConn(client.mustDo("Extras.DialBuffer", PeerArgs{Address: l.Address, N: int64(n)}))
		}, want)
	}
	wide := startPeer(t, d.Point)
	r := wide.mustDo("Extras.ListenBuffer", PeerArgs{N: 1 << 20})
	a, b := connectTo(t, client, overSMC, &peerListener{wide, r.ID, r.Local})
	wantSMCD(d, a, b)
	if size(a) != 32<<10 || size(b) != 1<<20 {
		t.Errorf("buffers of %d and %d bytes, want %d and %d", size(a), size(b), 32<<10, 1<<20)
	}
	d.wantGrowth(6<<20, func() { exchange(a, b, 3<<20) })
}

// TestReuse: connections one after the other use the same DMBs, until CloseIdle.
func TestReuse(t *testing.T) {
	inBothCopyModes(t, func(t *testing.T, d *device, client, server *peer) {
		l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
		tokens := make(map[string]int)
		reused := d.Stats().SMCD["SMC_INT_RX_BUF_REUSE_CNT"]
		const rounds = 100
		for i := range rounds {
			a, b := connectTo(t, client, overSMC, l)
			wantSMCD(d, a, b)
			d.wantGrowth(2000, func() { exchange(a, b, 1000) })
			tokens[a.Info().Token.String()]++
			tokens[b.Info().Token.String()]++
			if i%2 == 0 {
				a, b = b, a
			}
			wantError(t, "Close", a.Close(), nil)
			wantError(t, "Close", b.Close(), nil)
		}
		// The next connection can be faster than the end of the last: a few more than two.
		if len(tokens) > 8 || d.Read("dmbs_cnt") > "9" {
			t.Errorf("%d DMBs for %d connections, %s are there: %v", len(tokens), rounds, d.Read("dmbs_cnt"), tokens)
		}
		if n := d.Stats().SMCD["SMC_INT_RX_BUF_REUSE_CNT"] - reused; n < 2*rounds-8 {
			t.Errorf("reuse was counted %d times", n)
		}
		waitFor(t, "conns to be empty", func() error {
			if lines := d.Conns(); len(lines) != 1 { // the listener
				return fmt.Errorf("%v", lines)
			}
			return nil
		})
		if groups := d.LinkGroups(); len(groups) != 2 || groups[0][2] != "0" || groups[1][2] != "0" {
			t.Errorf("idle link groups: %v", groups)
		}
		client.CloseIdle()
		server.CloseIdle()
		d.WantCount(0)
		if groups := d.LinkGroups(); len(groups) != 0 {
			t.Errorf("link groups after CloseIdle: %v", groups)
		}
		a, b := connectTo(t, client, overSMC, l)
		wantSMCD(d, a, b)
		d.wantGrowth(2000, func() { exchange(a, b, 1000) })
	})
}

// TestReuseIsPrivate: a DMB goes from connection to connection of the same two processes only, and nothing of the last one is
// in it.
func TestReuseIsPrivate(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	d.wantGrowth(1<<20, func() { exchange(a, b, 512<<10) })
	seen := map[string]bool{a.Info().Token.String(): true, b.Info().Token.String(): true}
	wantError(t, "Close", a.Close(), nil)
	wantError(t, "Close", b.Close(), nil)
	for range 3 {
		stranger := startPeer(t, d.Point)
		x, y := connectTo(t, stranger, overSMC, l)
		wantSMCD(d, x, y)
		d.wantGrowth(2000, func() { exchange(x, y, 1000) })
		if seen[x.Info().Token.String()] || seen[y.Info().Token.String()] {
			t.Error("a DMB of another pair of processes")
		}
	}
	a, b = connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	if !seen[a.Info().Token.String()] || !seen[b.Info().Token.String()] {
		t.Fatal("the DMBs are not used again")
	}
	for c, room := range map[*peerConn]int{a: a.Info().WriteBuffer, b: b.Info().WriteBuffer} {
		r, err := c.do("Extras.Reserve", PeerArgs{ID: c.ID, N: int64(room)})
		if err != nil || len(strings.Trim(string(r.Data), "\x00")) != 0 || len(r.Data) == 0 {
			t.Errorf("the peer's ring: %d bytes, not all zero, %v", len(r.Data), err)
		}
	}
}

// TestUEIDs without the table, and with one that has nothing in common.
func TestUEIDsInHandshake(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	names := strings.Fields(d.Read("ueid"))
	again := func(code smc.DeclineCode) {
		t.Helper()
		a, b := connectTo(t, client, overSMC, l)
		if code == 0 {
			wantSMCD(d, a, b)
			d.wantGrowth(2000, func() { exchange(a, b, 1000) })
			return
		}
		wantTCP(a, smc.DeclPeerDecl, code)
		wantTCP(b, code, 0)
		d.wantGrowth(0, func() { exchange(a, b, 1000) })
	}
	again(0)
	for _, n := range names {
		wantError(t, "removing "+n, d.Write("ueid", "-"+n), nil)
	}
	again(smc.DeclNoUEID)
	wantError(t, "adding", d.Write("ueid", "+SITE-A"), nil)
	again(0)
	wantError(t, "adding", d.Write("ueid", "+SITE-B"), nil)
	again(0)
}

// TestDeclines has a client write Proposals by hand: what the server says to it, and to its own program.
func TestDeclines(t *testing.T) {
	d, client, server := smcPair(t)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	gid, err := smc.ParseGID(d.Read("gid"))
	if err != nil {
		t.Fatal(err)
	}
	id := func(name string) smc.EID {
		e, err := smc.ParseEID(name)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for _, row := range []struct {
		what string
		edit func(*smc.Proposal, *smc.Local)
		code smc.DeclineCode
	}{
		{"another EID", func(_ *smc.Proposal, l *smc.Local) { l.UEIDs = []smc.EID{id("NOBODY")} }, smc.DeclNoSMCDDev},
		{"no EID", func(_ *smc.Proposal, l *smc.Local) { l.UEIDs = nil }, smc.DeclNoUEID},
		{"another GID", func(_ *smc.Proposal, l *smc.Local) { l.GID[0] ^= 1 }, smc.DeclNoSMCD2Dev},
		{"no device", func(p *smc.Proposal, _ *smc.Local) { p.V2.SMCD.GIDs = nil }, smc.DeclNoSMCD2Dev},
		{"SMC-R version 2", func(p *smc.Proposal, _ *smc.Local) { p.TypeV2, p.V2.SMCD = smc.PathR, nil }, smc.DeclNoSMCRDev},
		{"version 1, SMC-D", func(p *smc.Proposal, _ *smc.Local) {
			*p = smc.Proposal{Version: smc.V1, TypeV1: smc.PathD}
		}, smc.DeclNoSMCDDev},
		{"version 1, SMC-R", func(p *smc.Proposal, _ *smc.Local) {
			*p = smc.Proposal{Version: smc.V1, TypeV1: smc.PathR}
		}, smc.DeclNoSMCDev},
	} {
		local := smc.Local{
			GID: gid, CHID: smc.CHIDLoopback, Active: true, Release: smc.Release,
			UEIDs: []smc.EID{id(strings.Fields(d.Read("ueid"))[0])},
		}
		p := smc.NewProposal(local)
		row.edit(&p, &local)
		if p.V2 != nil && p.V2.SMCD != nil && len(p.V2.SMCD.GIDs) > 0 {
			p = smc.NewProposal(local)
		}
		message, err := p.AppendTo(nil)
		if err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		a := client.MustDial(marked, "tcp", l.Address)
		_, err = a.Write(append(message, question...)) // the client cannot know yet; the server's program must see it all the same
		wantError(t, "Write", err, nil)
		b := l.MustAccept()
		wantTCP(b, row.code, 0)
		reply, err := a.ReadFull(44)
		if err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		if answer, err := smc.ParseDecline(reply); err != nil || answer.Diagnosis != row.code {
			t.Errorf("%s: the server says %+v, %v, want %v", row.what, answer, err, row.code)
		}
		got, err := b.ReadFull(len(question))
		wantText(t, row.what, got, err, question)
		say(t, b, greeting)
		hear(t, a, greeting)
		wantError(t, "Close", b.Close(), nil)
	}
}

// wantConns waits until conns has these lines, in any order, of which only the fields state, uid, mode, reason, role and
// shutdown count.
func (d *device) wantConns(want ...string) {
	d.t.Helper()
	waitFor(d.t, "conns to be as it should", func() error {
		left := make(map[string]int)
		for _, w := range want {
			left[w]++
		}
		text := d.Read("conns")
		for _, f := range d.Conns() {
			line := strings.Join([]string{f[0], f[1], f[6], f[7], f[17], f[19]}, " ")
			if left[line]--; left[line] < 0 {
				return fmt.Errorf("%q should not be there:\n%s", line, text)
			}
		}
		for w, n := range left {
			if n != 0 {
				return fmt.Errorf("%q is missing:\n%s", w, text)
			}
		}
		return nil
	})
}

// TestLists: conns, linkgroups and stats say what is.
func TestLists(t *testing.T) {
	d := mountSMC(t)
	client, server := startPeer(t, d.Point, asUser(1000)), startPeer(t, d.Point)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	listening := "LISTEN 0 LISTEN - - <->"
	d.wantConns(listening)
	if f := d.Conns()[0]; f[4] != l.Address || f[2] != fmt.Sprint(server.PID()) {
		t.Errorf("the listener is described as %v", f)
	}
	a, b := connectTo(t, client, overSMC, l)
	wantSMCD(d, a, b)
	d.wantConns(listening, "ACTIVE 1000 SMCD - client <->", "ACTIVE 0 SMCD - server <->")
	for _, f := range d.Conns() {
		c, p := a, client
		switch f[17] {
		case "-":
			continue
		case "server":
			c, p = b, server
		}
		i := c.Info()
		for k, want := range map[int]string{2: fmt.Sprint(p.PID()), 3: netNS(t, p.PID()), 4: c.Local, 5: c.Remote,
			8: i.Token.String(), 9: i.PeerToken.String(), 10: fmt.Sprintf("%08x", i.LinkGroup), 21: fmt.Sprint(i.ReadBuffer)} {
			if f[k] != want {
				t.Errorf("field %d of %v is not %s", k, f, want)
			}
		}
		if f[18] == "0" {
			t.Errorf("no inode: %v", f)
		}
	}
	groups := d.LinkGroups()
	if len(groups) != 2 {
		t.Fatalf("linkgroups: %v", groups)
	}
	for _, g := range groups {
		if g[2] != "1" || g[8] != "2" || g[9] != "1" || g[10] != "2" || g[11] == "-" || g[12] == "-" {
			t.Errorf("a link group is described as %v", g)
		}
	}
	before := d.Stats().SMCD
	d.wantGrowth(100<<10, func() { transfer(a, b, 100<<10) })
	after := d.Stats().SMCD
	for _, name := range []string{"SMC_TX_BYTES", "SMC_RX_BYTES"} {
		if n := after[name] - before[name]; n != 100<<10 {
			t.Errorf("%s grew by %d", name, n)
		}
	}
	if after["SMC_CLNT_V2_SUCC_CNT"] != 1 || after["SMC_SRV_V2_SUCC_CNT"] != 1 || after["SMC_RX_RMB_USAGE"] != 128<<10 {
		t.Errorf("stats: %d, %d successes, %d bytes of buffers",
			after["SMC_CLNT_V2_SUCC_CNT"], after["SMC_SRV_V2_SUCC_CNT"], after["SMC_RX_RMB_USAGE"])
	}

	// Fallen back, half closed, closed.
	plainly := startPeer(t, "off")
	x := plainly.MustDial(plain, "tcp", l.Address)
	y := l.MustAccept()
	tcp := fmt.Sprintf("ACTIVE 0 TCP 0x%08x server <->", uint32(smc.DeclPeerNoSMC))
	d.wantConns(listening, "ACTIVE 1000 SMCD - client <->", "ACTIVE 0 SMCD - server <->", tcp)
	wantError(t, "CloseWrite", a.CloseWrite(), nil)
	hear(t, b, "")
	d.wantConns(listening, "PEERCLOSEWAIT1 1000 SMCD - client <-W", "APPCLOSEWAIT1 0 SMCD - server R->", tcp)
	wantError(t, "CloseRead", a.CloseRead(), nil)
	d.wantConns(listening, "PEERCLOSEWAIT1 1000 SMCD - client R-W", "APPCLOSEWAIT1 0 SMCD - server R->", tcp)
	for _, c := range []*peerConn{a, b, x, y} {
		wantError(t, "Close", c.Close(), nil)
	}
	d.wantConns(listening)

	// A client in its handshake is not settled.
	a = client.MustDial(overSMC, "tcp", l.Address)
	if i := a.Info(); i.Mode != libsmc.Handshaking {
		t.Errorf("dialled: %s", i)
	}
	time.Sleep(moment)
	for _, f := range d.Conns() {
		if f[1] == "1000" && f[6] == "SMCD" {
			t.Errorf("SMC-D before it is settled: %v", f)
		}
	}
	b = l.MustAccept()
	wantError(t, "handshake", a.Handshake(0), nil)
	wantError(t, "Close", l.Close(), nil)
	d.wantConns("ACTIVE 1000 SMCD - client <->", "ACTIVE 0 SMCD - server <->")
	server.Kill()
	_, err := a.Read(1)
	if err == nil {
		t.Error("Read after the server's death")
	}
	wantError(t, "Close", a.Close(), nil)
	client.CloseIdle()
	d.wantConns()
	d.WantCount(0)
	if text := d.Read("linkgroups"); text != "" {
		t.Errorf("linkgroups: %q", text)
	}
}
