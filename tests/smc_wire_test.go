// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/ismfs/ismfs/bpf/smcopt"
	"github.com/ismfs/ismfs/smc"
)

// A wireScene is a device, with a client and a server in a network namespace where everything is captured.
type wireScene struct {
	t              *testing.T
	d              *device
	client, server *peer
	*capture
}

func newWireScene(t *testing.T, args ...string) *wireScene {
	t.Helper()
	d := mountSMC(t, args...)
	n := newNetns(t)
	return &wireScene{t, d, n.startPeer(d.Point), n.startPeer(d.Point), n.capture()}
}

// wantHandshake fails the test unless a connection's CLC messages were those of a golden one, of these lengths, but for what
// no two hosts have in common. It returns them.
func (s *wireScene) wantHandshake(a *peerConn, golden [][]byte, lengths ...int) [][]byte {
	s.t.Helper()
	s.wantSaid(a)
	sent := payloads(s.of(a))
	if len(sent) != len(lengths) {
		s.t.Fatalf("%d segments with payload, want %d: %x", len(sent), len(lengths), sent)
	}
	for i, b := range sent {
		if len(b) != lengths[i] {
			s.t.Errorf("message %d has %d bytes, want %d", i, len(b), lengths[i])
		}
		if got := levelled(s.t, b, golden[i]); !bytes.Equal(got, golden[i]) {
			s.t.Errorf("message %d:\n%x\nwant, as the kernel\n%x", i, got, golden[i])
		}
	}
	return sent
}

// wantSaid fails the test unless a connection's SYN and SYN-ACK, and no other segment, had the option.
func (s *wireScene) wantSaid(a *peerConn) {
	s.t.Helper()
	gid, err := smc.ParseGID(s.d.Read("gid"))
	if err != nil {
		s.t.Fatal(err)
	}
	for i, seg := range s.of(a) {
		var want []byte
		if seg.flags&flagSYN != 0 {
			want = smcOption(smcopt.FromClient, smcopt.TagOf(gid))
			if seg.flags&flagACK != 0 {
				want[6] = smcopt.FromServer
			}
		}
		if got := seg.experimental(); !bytes.Equal(got, want) {
			s.t.Errorf("segment %d of %s with flags %#x has the options %x, want %x", i, a.Local, seg.flags, got, want)
		}
	}
}

// wantFields compares what two hosts do not have in common with what the two ends say of themselves.
func wantFields(t *testing.T, d *device, a, b *peerConn, sent [][]byte) {
	t.Helper()
	p, err := smc.ParseProposal(sent[0])
	if err != nil {
		t.Fatal(err)
	}
	accept, err := smc.ParseAcceptConfirm(sent[1])
	if err != nil {
		t.Fatal(err)
	}
	confirm, err := smc.ParseAcceptConfirm(sent[2])
	if err != nil {
		t.Fatal(err)
	}
	i, k := a.Info(), b.Info()
	if o := p.V2.SMCD.Devices(); len(o) != 1 || o[0] != (smc.OfferedDevice{GID: i.GID, CHID: smc.CHIDLoopback}) {
		t.Errorf("the Proposal offers %v", o)
	}
	if e := p.V2.UEIDs; len(e) != 1 || e[0].String() != d.Read("ueid") || e[0] != accept.EID || e[0] != confirm.EID {
		t.Errorf("EIDs %v, %v, %v, the device's is %q", e, accept.EID, confirm.EID, d.Read("ueid"))
	}
	if p.Process() != k.PeerProcess || i.PeerProcess == k.PeerProcess {
		t.Errorf("the Proposal is from process %d; the server knows %d, the client %d", p.Process(), k.PeerProcess, i.PeerProcess)
	}
	for _, m := range []struct {
		name    string
		own     smc.AcceptConfirm
		info    PeerInfo
		process uint32
	}{{"Accept", accept, k, i.PeerProcess}, {"Confirm", confirm, i, k.PeerProcess}} {
		dmb, group := uint64(m.info.Token), m.info.LinkGroup
		if m.own.GID != m.info.GID || m.own.Token != dmb || m.own.LinkID != group || m.own.Bit() == 0 {
			t.Errorf("%s: %+v; its sender says %+v", m.name, m.own, m.info)
		}
		if f := m.own.FCE; f != nil {
			host, _ := os.Hostname()
			if f.VendorExpOptions != m.process || f.Page() == 0 || f.Hostname != smc.PadHostname(host) {
				t.Errorf("%s: %+v of process %d on host %s", m.name, f, m.process, host)
			}
		}
	}
}

// TestHandshakeOnTheWire: first contact and two connections in the link group, as the kernel has them on the wire. After that
// not a byte goes over TCP, and the connections end as the kernel's.
func TestHandshakeOnTheWire(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			s := newWireScene(t)
			l := s.server.Listen(overSMC, "tcp", address)
			first, next := goldenMessages(t, "smcd1.pcap"), goldenMessages(t, "smcd2.pcap")
			var groups [][2]uint32
			for i, c := range []struct {
				golden  [][]byte
				lengths []int
			}{{first, []int{224, 130, 130}}, {next, []int{224, 78, 78}}, {next[3:], []int{224, 78, 78}}} {
				a, b := connectTo(t, s.client, overSMC, l)
				wantSMCD(s.d, a, b)
				s.d.wantGrowth(2<<20, func() { exchange(a, b, 1<<20) })
				wantError(t, "CloseWrite", a.CloseWrite(), nil)
				rest, err := b.ReadAll()
				wantText(t, "the rest", rest, err, "")
				wantFields(t, s.d, a, b, s.wantHandshake(a, c.golden, c.lengths...))
				groups = append(groups, [2]uint32{a.Info().LinkGroup, b.Info().LinkGroup})
				if groups[i] != groups[0] {
					t.Errorf("connection %d is in the link groups %x, the first in %x", i, groups[i], groups[0])
				}
				wantError(t, "Close", b.Close(), nil)
				wantError(t, "Close", a.Close(), nil)
				waitFor(t, "both FINs", func() error { return s.wantEnd(a) })
				s.wantHandshake(a, c.golden, c.lengths...) // and nothing came after it
			}
			s.wantLegible(3)
		})
	}
}

// wantEnd reports whether both ends have sent a FIN, and none a RST.
func (s *wireScene) wantEnd(a *peerConn) error {
	fins := 0
	for _, seg := range s.of(a) {
		if seg.flags&flagRST != 0 {
			s.t.Fatalf("%s is reset", a.Local)
		}
		if seg.flags&flagFIN != 0 {
			fins++
		}
	}
	if fins != 2 {
		return fmt.Errorf("%d FINs", fins)
	}
	return nil
}

// kernelDecline is the kernel's Decline with another code.
func kernelDecline(t *testing.T, code smc.DeclineCode) []byte {
	b := bytes.Clone(goldenMessages(t, "noeid.pcap")[1])
	binary.BigEndian.PutUint32(b[16:], uint32(code))
	if code == smc.DeclSyncErr {
		b[7] |= 8
	}
	return b
}

// TestDeclineOnTheWire: handshakes that end in a Decline, byte for byte the kernel's, and what the programs say after it.
func TestDeclineOnTheWire(t *testing.T) {
	proposal, noEID := goldenMessages(t, "smcd1.pcap")[0], goldenMessages(t, "noeid.pcap")[0]
	accept := goldenMessages(t, "smcd1.pcap")[1]
	for _, c := range []struct {
		name           string
		mount          []string
		change         func(d *device) error
		before         [][]byte // the Decline
		code           smc.DeclineCode
		client, server fallback
	}{
		{"no EID", nil, func(d *device) error { return d.Write("ueid", "-"+d.Read("ueid")) },
			[][]byte{noEID}, smc.DeclNoUEID, fallback{smc.DeclPeerDecl, smc.DeclNoUEID}, fallback{reason: smc.DeclNoUEID}},
		{"inactive", nil, func(d *device) error { return d.Write("active", "0") },
			nil, smc.DeclNoSMCDev, fallback{reason: smc.DeclNoSMCDev}, fallback{smc.DeclPeerDecl, smc.DeclNoSMCDev}},
		{"one DMB", []string{"--max-dmbs", "1"}, func(*device) error { return nil }, // the server's
			[][]byte{proposal, accept}, smc.DeclMaxDMB,
			fallback{reason: smc.DeclMaxDMB}, fallback{smc.DeclPeerDecl, smc.DeclMaxDMB}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newWireScene(t, c.mount...)
			wantError(t, "change", c.change(s.d), nil)
			a, b := connect(t, s.client, overSMC, s.server, overSMC)
			wantTCP(a, c.client.reason, c.client.diagnosis)
			wantTCP(b, c.server.reason, c.server.diagnosis)
			s.d.wantGrowth(0, func() {
				say(t, a, question)
				hear(t, b, question)
				say(t, b, greeting)
				hear(t, a, greeting)
			})
			s.wantSaid(a)
			sent := payloads(s.of(a))
			want := append(slices.Clone(c.before), kernelDecline(t, c.code), []byte(question), []byte(greeting))
			if len(sent) != len(want) {
				t.Fatalf("%d segments with payload, want %d: %q", len(sent), len(want), sent)
			}
			for i := range want {
				got := sent[i]
				if i < len(c.before) {
					got = levelled(t, got, want[i])
				}
				if !bytes.Equal(got, want[i]) {
					t.Errorf("message %d:\n%x\nwant\n%x", i, got, want[i])
				}
			}
			s.wantLegible(1)
		})
	}
}

// levelled is a CLC message with everything that no two hosts have in common as in another one. It has to be as we encode it:
// nothing stands in a field that is reserved.
func levelled(t *testing.T, b, like []byte) []byte {
	t.Helper()
	h, err := smc.ParseHeader(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	type message interface{ AppendTo([]byte) ([]byte, error) }
	var m message
	var level func()
	switch h.Type {
	case smc.MsgProposal:
		p, err1 := smc.ParseProposal(b)
		q, err2 := smc.ParseProposal(like)
		m, err = &p, firstError(err1, err2)
		level = func() {
			p.VendorOUI, p.VendorExpOptions = q.VendorOUI, q.VendorExpOptions
			p.V2.UEIDs, p.V2.SMCD.GIDs = q.V2.UEIDs[:min(len(p.V2.UEIDs), len(q.V2.UEIDs))], q.V2.SMCD.GIDs
		}
	case smc.MsgAccept, smc.MsgConfirm:
		p, err1 := smc.ParseAcceptConfirm(b)
		q, err2 := smc.ParseAcceptConfirm(like)
		m, err = &p, firstError(err1, err2)
		level = func() {
			p.GID, p.Token, p.LinkID, p.EID, p.Reserved4 = q.GID, q.Token, q.LinkID, q.EID, q.Reserved4
			if p.FCE != nil && q.FCE != nil {
				f := *q.FCE
				p.FCE.Hostname, p.FCE.VendorExpOptions, p.FCE.Reserved4 = f.Hostname, f.VendorExpOptions, f.Reserved4
			}
		}
	default:
		return b
	}
	if err != nil {
		t.Fatalf("%x, %x: %v", b, like, err)
	}
	again, err := m.AppendTo(nil)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%x\nencodes as\n%x, %v", b, again, err)
	}
	level()
	b, err = m.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
