// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"testing"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

const kernelEID = "SMCV2-ANCHOR-UEID.01" // of the captures

// kernelProposal is the real kernel's Proposal with this device's GID.
func kernelProposal(t *testing.T, gid smc.GID) []byte {
	b := bytes.Clone(goldenMessages(t, "smcd1.pcap")[0])
	copy(b[200:], gid[:8])
	copy(b[210:], gid[8:])
	return b
}

// TestKernelAsClient: the kernel's own Proposal gets a valid Accept. Its sender names no process, so every connection is a
// first contact, and nothing of it stays.
func TestKernelAsClient(t *testing.T) {
	for _, mode := range []string{"0", "1"} {
		t.Run("dmb_copy "+mode, func(t *testing.T) { kernelAsClient(t, mode) })
	}
}

func kernelAsClient(t *testing.T, mode string) {
	s := newWireScene(t)
	wantError(t, "dmb_copy", s.d.Write("dmb_copy", mode), nil)
	wantError(t, "ueid", s.d.Write("ueid", "+"+kernelEID), nil)
	gid, err := smc.ParseGID(s.d.Read("gid"))
	if err != nil {
		t.Fatal(err)
	}
	golden := goldenMessages(t, "smcd1.pcap")
	l := s.server.Listen(overSMC, "tcp", "127.0.0.1:0")
	tokens := map[uint64]bool{}
	for range 3 {
		a := s.client.MustDial(marked, "tcp", l.Address)
		accepted := later(l.Accept)
		mustWrite(a, kernelProposal(t, gid))
		b, err := a.ReadFull(130)
		if err != nil {
			t.Fatal(err)
		}
		accept, err := smc.ParseAcceptConfirm(b)
		if err != nil || accept.GID != gid || accept.EID.String() != kernelEID || tokens[accept.Token] {
			t.Fatalf("Accept: %+v, %v", accept, err)
		}
		if accept.FCE.VendorExpOptions != 0 || accept.FCE.Page() != 0 {
			t.Errorf("the Accept tells a stranger %+v", accept.FCE)
		}
		tokens[accept.Token] = true
		if got := levelled(t, b, golden[1]); !bytes.Equal(got, golden[1]) {
			t.Errorf("Accept:\n%x\nwant\n%x", got, golden[1])
		}
		own := a.registerByHand(64 << 10)
		mustWrite(a, kernelAnswer(t, golden[2], gid, own, accept.LinkID+1<<8))
		a.attachByHand(accept.Token, accept.DMBESize)
		end, err := accepted()
		if err != nil {
			t.Fatal(err)
		}
		wantByHand(s.d, end, own, accept.Token)
		s.d.WantCount(2) // no doorbell page, nothing of the connection before
		s.d.wantGrowth(2*300<<10, func() { exchange(a, end, 300<<10) })
		wantError(t, "Close", a.Close(), nil)
		rest, err := end.ReadAll()
		wantText(t, "the rest", rest, err, "")
		wantError(t, "Close", end.Close(), nil)
		s.d.WantCount(0)
	}
	s.wantLegible(3)
}

// TestKernelAsServer: our client takes the kernel's own Accept, at first contact and in a link group that it knows.
func TestKernelAsServer(t *testing.T) {
	for _, mode := range []string{"0", "1"} {
		t.Run("dmb_copy "+mode, func(t *testing.T) { kernelAsServer(t, mode) })
	}
}

func kernelAsServer(t *testing.T, mode string) {
	s := newWireScene(t)
	wantError(t, "dmb_copy", s.d.Write("dmb_copy", mode), nil)
	wantError(t, "ueid", s.d.Write("ueid", "-"+s.d.Read("ueid")), nil)
	wantError(t, "ueid", s.d.Write("ueid", "+"+kernelEID), nil)
	gid, err := smc.ParseGID(s.d.Read("gid"))
	if err != nil {
		t.Fatal(err)
	}
	l := s.server.Listen(marked, "tcp", "127.0.0.1:0")
	const group = 0x100
	first, next := goldenMessages(t, "smcd1.pcap"), goldenMessages(t, "smcd2.pcap")
	for i, golden := range [][][]byte{first, next, next[3:]} {
		a := s.client.MustDial(overSMC, "tcp", l.Address)
		b := l.MustAccept()
		proposal, err := b.ReadFull(224)
		if err != nil {
			t.Fatal(err)
		}
		if got := levelled(t, proposal, golden[0]); !bytes.Equal(got, golden[0]) {
			t.Errorf("Proposal:\n%x\nwant\n%x", got, golden[0])
		}
		own := b.registerByHand(64 << 10)
		mustWrite(b, kernelAnswer(t, golden[1], gid, own, group))
		answer, err := b.ReadFull(len(golden[2]))
		if err != nil {
			t.Fatal(err)
		}
		if got := levelled(t, answer, golden[2]); !bytes.Equal(got, golden[2]) {
			t.Errorf("Confirm %d:\n%x\nwant\n%x", i, got, golden[2])
		}
		confirm, err := smc.ParseAcceptConfirm(answer)
		if err != nil || confirm.GID != gid {
			t.Fatalf("Confirm: %+v, %v", confirm, err)
		}
		b.attachByHand(confirm.Token, confirm.DMBESize)
		wantError(t, "handshake", a.Handshake(0), nil)
		wantByHand(s.d, a, own, confirm.Token)
		s.d.wantGrowth(2*300<<10, func() { exchange(a, b, 300<<10) })
		wantError(t, "Close", a.Close(), nil)
		rest, err := b.ReadAll()
		wantText(t, "the rest", rest, err, "")
		wantError(t, "Close", b.Close(), nil)
	}
	// A link group that it does not know, and the kernel's answer to that.
	a := s.client.MustDial(overSMC, "tcp", l.Address)
	b := l.MustAccept()
	if _, err := b.ReadFull(224); err != nil {
		t.Fatal(err)
	}
	mustWrite(b, kernelAnswer(t, next[1], gid, b.registerByHand(64<<10), group+1<<8))
	decline, err := b.ReadFull(44)
	if err != nil || !bytes.Equal(decline, kernelDecline(t, smc.DeclSyncErr)) {
		t.Errorf("to an unknown link group: %x, %v", decline, err)
	}
	wantTCP(a, smc.DeclSyncErr, 0)
	say(t, a, question)
	hear(t, b, question)
	s.wantLegible(4)
}

// kernelAnswer is the kernel's Accept or Confirm for this device, with this DMB and link group.
func kernelAnswer(t *testing.T, golden []byte, gid smc.GID, token uint64, group uint32) []byte {
	t.Helper()
	m, err := smc.ParseAcceptConfirm(golden)
	if err != nil {
		t.Fatal(err)
	}
	m.GID, m.Token, m.LinkID = gid, token, group
	b, err := m.AppendTo(nil)
	if err != nil || len(b) != len(golden) {
		t.Fatalf("%x, %v", b, err)
	}
	return b
}

// wantByHand fails the test unless an end of libsmc's has an SMC-D connection with these DMBs.
func wantByHand(d *device, c *peerConn, peerToken, token uint64) {
	d.t.Helper()
	i := c.Info()
	tokens := uint64(i.PeerToken) == peerToken && uint64(i.Token) == token
	if i.Mode != libsmc.SMCD || !tokens || i.GID.String() != d.Read("gid") {
		d.t.Fatalf("%s: %+v, want SMC-D with the tokens %x and %x", c.Local, i, token, peerToken)
	}
}

func mustWrite(c *peerConn, b []byte) {
	c.t.Helper()
	if n, err := c.Write(b); err != nil || n != len(b) {
		c.t.Fatalf("wrote %d of %d bytes: %v", n, len(b), err)
	}
}
