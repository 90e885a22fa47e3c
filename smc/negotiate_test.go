// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"errors"
	"syscall"
	"testing"
)

var (
	eidA, eidB = mustEID("A"), mustEID("B")
	otherGID   = GIDFromHalves(1, 2)
)

func testLocal() *Local {
	return &Local{GID: goldenGID, CHID: CHIDLoopback, Active: true,
		UEIDs: []EID{eidA, eidB}, Release: Release, Features: FeatureEmulatedISM}
}

func TestAnswerProposal(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(p *Proposal, l *Local)
		want error // nil: agreed
	}{
		{"plain", func(p *Proposal, l *Local) {}, nil},
		{"native device too", func(p *Proposal, l *Local) { p.ISM = GIDCHID{1, 7} }, nil},
		{"version 3", func(p *Proposal, l *Local) { p.Version = 3 }, nil},
		{"all types", func(p *Proposal, l *Local) { p.TypeV1, p.TypeV2 = PathBoth, PathBoth }, nil},
		{"second device", func(p *Proposal, l *Local) {
			p.V2.SMCD.GIDs = append([]GIDCHID{{9, 0xFF01}, {9, 0xFF01}, {8, 3}}, p.V2.SMCD.GIDs...)
		}, nil},

		{"nothing offered", func(p *Proposal, l *Local) { p.TypeV2, p.V2 = PathNone, nil }, DeclPeerNoSMC},
		{"no v2 extension", func(p *Proposal, l *Local) { p.V2 = nil }, DeclNoV2Ext},
		{"no SMC-Dv2 extension", func(p *Proposal, l *Local) { p.V2.SMCD = nil }, DeclNoV2DExt},
		{"no EID", func(p *Proposal, l *Local) { p.V2.UEIDs = nil }, DeclNoUEID},
		{"system EID only", func(p *Proposal, l *Local) { p.V2.UEIDs = nil; p.V2.SEID = true }, DeclNoSMCDDev},
		{"EIDs differ", func(p *Proposal, l *Local) { l.UEIDs = []EID{mustEID("C")} }, DeclNoSMCDDev},
		{"other GID", func(p *Proposal, l *Local) { l.GID = otherGID }, DeclNoSMCD2Dev},
		{"other CHID", func(p *Proposal, l *Local) { l.CHID = 0xFF00 }, DeclNoSMCD2Dev},
		{"half a GID", func(p *Proposal, l *Local) { p.V2.SMCD.GIDs = p.V2.SMCD.GIDs[:1] }, DeclNoSMCD2Dev},
		{"second half differs", func(p *Proposal, l *Local) { p.V2.SMCD.GIDs[1].GID++ }, DeclNoSMCD2Dev},
		{"no device offered", func(p *Proposal, l *Local) { p.V2.SMCD.GIDs = nil }, DeclNoSMCD2Dev},
		{"inactive", func(p *Proposal, l *Local) { l.Active = false }, DeclNoSMCD2Dev},

		{"version 1, SMC-D", func(p *Proposal, l *Local) { *p = Proposal{Version: V1, TypeV1: PathD} }, DeclNoSMCDDev},
		{"version 1, SMC-R", func(p *Proposal, l *Local) { *p = Proposal{Version: V1, TypeV1: PathR} }, DeclNoSMCDev},
		{"version 1, both", func(p *Proposal, l *Local) { *p = Proposal{Version: V1, TypeV1: PathBoth} }, DeclNoSMCDDev},
		{"version 1 in version 2, no v2 extension", func(p *Proposal, l *Local) { p.TypeV1, p.V2 = PathD, nil }, DeclNoSMCDDev},
		{"SMC-Rv1 and no EID", func(p *Proposal, l *Local) { p.TypeV1, p.V2.UEIDs = PathR, nil }, DeclNoSMCDev},
		{"SMC-Rv1 and other GID", func(p *Proposal, l *Local) { p.TypeV1, l.GID = PathR, otherGID }, DeclNoSMCD2Dev},
		{"SMC-Rv2 only", func(p *Proposal, l *Local) { p.TypeV2, p.V2.SMCD = PathR, nil }, DeclNoSMCRDev},
		{"SMC-Rv2 only, EIDs differ", func(p *Proposal, l *Local) {
			p.TypeV2, p.V2.SMCD, l.UEIDs = PathR, nil, nil
		}, DeclNoSMCDev},
		{"SMC-Rv2 only, no EID", func(p *Proposal, l *Local) { p.TypeV2, p.V2.SMCD, p.V2.UEIDs = PathR, nil, nil }, DeclNoUEID},
		{"SMC-Rv2, SMC-D without extension", func(p *Proposal, l *Local) { p.TypeV2, p.V2.SMCD = PathBoth, nil }, DeclNoSMCRDev},
	} {
		l := testLocal()
		p := NewProposal(*testLocal())
		p.V2.UEIDs = []EID{eidB, eidA}
		test.edit(&p, l)
		got, err := AnswerProposal(&p, l)
		if err != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		want := Agreement{}
		if err == nil {
			want = Agreement{eidB, 1, FeatureEmulatedISM}
		}
		if got != want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestAnswerProposalWithoutDevice(t *testing.T) {
	p := NewProposal(*testLocal())
	if _, err := AnswerProposal(&p, nil); err != DeclNoISM2Supp {
		t.Errorf("SMC-D: %v", err)
	}
	p.TypeV2 = PathBoth
	if _, err := AnswerProposal(&p, nil); err != DeclNoSMCDev {
		t.Errorf("SMC-D and SMC-R: %v", err)
	}
}

func TestReleaseNegotiation(t *testing.T) {
	for _, test := range []struct{ client, server, want uint8 }{{0, 1, 0}, {1, 0, 0}, {1, 1, 1}, {15, 1, 1}} {
		l := testLocal()
		p := NewProposal(*l)
		p.V2.Release, l.Release = test.client, test.server
		if got, err := AnswerProposal(&p, l); err != nil || got.Release != test.want {
			t.Errorf("%d and %d: %+v, %v", test.client, test.server, got, err)
		}
	}
}

// isProtocol stands for any ProtocolError in the tables below.
var isProtocol = errors.New("EPROTO")

func matches(err, want error) bool {
	if want == isProtocol {
		return errors.Is(err, syscall.EPROTO)
	}
	return err == want
}

func testAccept(typ MsgType) *AcceptConfirm {
	a := goldenAccept(typ, true, 1, 1)
	a.EID = eidA
	return a
}

func TestCheckAccept(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(p *Proposal, a *AcceptConfirm)
		want error
	}{
		{"plain", func(p *Proposal, a *AcceptConfirm) {}, nil},
		{"version 1", func(p *Proposal, a *AcceptConfirm) { a.Version = V1 }, DeclModeUnsupp},
		{"version 3", func(p *Proposal, a *AcceptConfirm) { a.Version = 3 }, DeclModeUnsupp},
		{"SMC-R", func(p *Proposal, a *AcceptConfirm) { a.TypeV1 = PathR }, DeclModeUnsupp},
		{"SMC-D was not proposed", func(p *Proposal, a *AcceptConfirm) { p.TypeV2, p.V2.SMCD = PathR, nil }, DeclModeUnsupp},
		{"CHID", func(p *Proposal, a *AcceptConfirm) { a.CHID = 0xFFFE }, isProtocol},
		{"GID", func(p *Proposal, a *AcceptConfirm) { a.GID[15]++ }, isProtocol},
		{"EID", func(p *Proposal, a *AcceptConfirm) { a.EID = mustEID("C") }, isProtocol},
		{"DMB index", func(p *Proposal, a *AcceptConfirm) { a.DMBEIndex = 1 }, isProtocol},
		{"release", func(p *Proposal, a *AcceptConfirm) { a.FCE.Release = 2 }, DeclReleaseErr},
	} {
		p, a := NewProposal(*testLocal()), testAccept(MsgAccept)
		test.edit(&p, a)
		got, err := CheckAccept(&p, a)
		if !matches(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		want := Agreement{}
		if err == nil {
			want = Agreement{eidA, 1, FeatureEmulatedISM}
		}
		if got != want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
	p, a := NewProposal(*testLocal()), testAccept(MsgAccept)
	a.FCE.FeatureMask = 0xFFFE
	if got, err := CheckAccept(&p, a); err != nil || got.Features != 0 {
		t.Errorf("features: %+v, %v", got, err)
	}
	a.FirstContact, a.FCE = false, nil
	if got, err := CheckAccept(&p, a); err != nil || got != (Agreement{EID: eidA}) {
		t.Errorf("later contact: %+v, %v", got, err)
	}
}

func TestCheckConfirm(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(c *AcceptConfirm)
		want error
	}{
		{"plain", func(c *AcceptConfirm) { c.Token, c.LinkID = 9, 9 }, nil},
		{"version", func(c *AcceptConfirm) { c.Version = V1 }, isProtocol},
		{"path", func(c *AcceptConfirm) { c.TypeV1 = PathR }, isProtocol},
		{"first contact", func(c *AcceptConfirm) { c.FirstContact, c.FCE = false, nil }, isProtocol},
		{"GID", func(c *AcceptConfirm) { c.GID[0]++ }, isProtocol},
		{"CHID", func(c *AcceptConfirm) { c.CHID-- }, isProtocol},
		{"EID", func(c *AcceptConfirm) { c.EID = eidB }, isProtocol},
		{"DMB index", func(c *AcceptConfirm) { c.DMBEIndex = 255 }, isProtocol},
		{"release", func(c *AcceptConfirm) { c.FCE.Release = 0 }, DeclReleaseErr},
	} {
		a, c := testAccept(MsgAccept), testAccept(MsgConfirm)
		test.edit(c)
		features, err := CheckConfirm(a, c)
		if !matches(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if (features == FeatureEmulatedISM) != (err == nil) {
			t.Errorf("%s: features %x", test.name, features)
		}
	}
	a, c := testAccept(MsgAccept), testAccept(MsgConfirm)
	a.FirstContact, a.FCE, c.FirstContact, c.FCE = false, nil, false, nil
	if features, err := CheckConfirm(a, c); features != 0 || err != nil {
		t.Errorf("later contact: %x, %v", features, err)
	}
}
