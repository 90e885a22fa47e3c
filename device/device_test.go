// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/smc"
)

// self is this test as a caller.
func self() Caller {
	return Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), TID: uint32(os.Getpid())}
}

// another starts a process that does nothing, to be somebody else.
func another(t *testing.T) (Caller, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return Caller{UID: uint32(os.Geteuid()), TID: uint32(cmd.Process.Pid)}, cmd
}

func newDevice(t *testing.T, change ...func(*Config)) *Device {
	t.Helper()
	cfg := Config{Limits: DefaultLimits(1 << 30)}
	for _, f := range change {
		f(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func register(t *testing.T, d *Device, token Token, lease bool, size int64) *Handle {
	t.Helper()
	h, err := d.RegisterDMB(self(), token, lease)
	if err != nil {
		t.Fatalf("register %v: %v", token, err)
	}
	if err := h.DMB.SetSize(self(), size); err != nil {
		t.Fatalf("size of %v: %v", token, err)
	}
	return h
}

func wantErrno(t *testing.T, what string, err error, want unix.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestRegisterAttachDetach(t *testing.T) {
	d := newDevice(t)
	owner := register(t, d, 1, true, 64<<10)
	if got := owner.DMB.Info(); got.Refs != 1 || got.Size != 64<<10 || got.OwnerPID != os.Getpid() {
		t.Errorf("after registering: %+v", got)
	}
	peerCaller, _ := another(t)
	peer, err := d.AttachDMB(peerCaller, owner.DMB, ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	if got := owner.DMB.Info(); got.Refs != 2 || got.PeerPID != int(peerCaller.TID) {
		t.Errorf("after attaching: %+v", got)
	}
	_, err = d.AttachDMB(peerCaller, owner.DMB, ReadWrite)
	wantErrno(t, "a second attach", err, unix.EBUSY)

	d.DetachDMB(owner)
	if d.LookupDMB(1) != nil {
		t.Error("the DMB is to be found after its owner has gone")
	}
	if n := d.DMBCount(); n != 1 {
		t.Errorf("%d DMBs while the peer holds one", n)
	}
	if got := owner.DMB.Info(); got.Refs != 1 {
		t.Errorf("after the owner: %+v", got)
	}
	d.DetachDMB(peer)
	if n, b := d.DMBCount(), d.Statistics(self()).Bytes; n != 0 || b != 0 {
		t.Errorf("%d DMBs and %d bytes are left", n, b)
	}
	_, err = d.RegisterDMB(self(), 1, true)
	wantErrno(t, "a token that was in use", err, unix.EEXIST)
}

func TestCopyMode(t *testing.T) {
	d := newDevice(t, func(c *Config) { c.DMBCopy = true })
	peer, _ := another(t)
	for _, c := range []struct {
		name string
		size int64
		a    Access
		want error
	}{
		{"mapping", 64 << 10, ReadWrite, unix.EACCES},
		{"writing", 64 << 10, WriteOnly, nil},
		{"mapping a doorbell page", doorbellPageSize, ReadWrite, nil},
	} {
		h := register(t, d, NewToken(), true, c.size)
		if _, err := d.AttachDMB(peer, h.DMB, c.a); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if d.SupportDMBNoCopy() {
		t.Error("support_dmb_nocopy in copy mode")
	}
}

func TestMoveData(t *testing.T) {
	d := newDevice(t)
	h := register(t, d, 7, true, PageSize)
	if err := d.MoveData(7, true, 32, []byte("payload")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 7)
	if _, err := unix.Pread(h.FD(), got, 32); err != nil || !bytes.Equal(got, []byte("payload")) {
		t.Errorf("read %q, %v", got, err)
	}
	var seq [4]byte
	if _, err := unix.Pread(h.FD(), seq[:], offSignalSequence); err != nil || seq == [4]byte{} {
		t.Errorf("the signal sequence is %v, %v", seq, err)
	}
	for _, c := range []struct {
		name  string
		token Token
		off   int64
		n     int
	}{
		{"unknown token", 8, 0, 1},
		{"beyond the end", 7, PageSize, 1},
		{"across the end", 7, PageSize - 1, 2},
		{"before the start", 7, -1, 1},
		{"an offset that overflows", 7, 1<<63 - 1, 1},
	} {
		wantErrno(t, c.name, d.MoveData(c.token, false, c.off, make([]byte, c.n)), unix.EINVAL)
	}
	if err := d.MoveData(7, false, PageSize-1, []byte{1}); err != nil {
		t.Errorf("the last byte: %v", err)
	}
}

func TestOwnerExit(t *testing.T) {
	d := newDevice(t)
	caller, cmd := another(t)
	h, err := d.RegisterDMB(caller, 9, true)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); d.LookupDMB(9) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the name outlives its owner")
		}
		time.Sleep(time.Millisecond)
	}
	// A child could hold the handle still: the DMB lasts as long as that.
	if n := d.DMBCount(); n != 1 {
		t.Errorf("%d DMBs while the handle is open", n)
	}
	d.DetachDMB(h)
	if n := d.DMBCount(); n != 0 {
		t.Errorf("%d DMBs after the handle", n)
	}
}

func TestActive(t *testing.T) {
	d := newDevice(t)
	me := self()
	if err := d.CheckPrivileged(me); err != nil {
		t.Skipf("turning knobs needs CAP_SYS_ADMIN: %v", err)
	}
	leased := register(t, d, 1, true, PageSize)
	shell := register(t, d, 2, false, PageSize)
	gid := d.LocalGID()
	if err := d.SetState(me, Draining); err != nil {
		t.Fatal(err)
	}
	_, err := d.RegisterDMB(me, 3, true)
	wantErrno(t, "register while draining", err, unix.ENODEV)
	if got := leased.DMB.Info().Refs; got != 1 {
		t.Errorf("%d references while draining", got)
	}
	if err := d.SetState(me, Inactive); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "drain when off", d.SetState(me, Draining), unix.EINVAL)
	for _, h := range []*Handle{leased, shell} {
		if got := h.DMB.Info().Refs; got != 0 || d.LookupDMB(h.DMB.Token) != nil {
			t.Errorf("DMB %v: %d references when off", h.DMB.Token, got)
		}
	}
	if d.DMBCount() != 2 {
		t.Errorf("%d DMBs while their handles are open", d.DMBCount())
	}
	d.DetachDMB(leased)
	d.DetachDMB(shell)
	if d.DMBCount() != 0 {
		t.Errorf("%d DMBs are left", d.DMBCount())
	}
	if err := d.SetState(me, Active); err != nil {
		t.Fatal(err)
	}
	if d.LocalGID() != gid {
		t.Error("off and on changed the GID")
	}
	if s := d.Statistics(me); s.Epoch != 3 {
		t.Errorf("epoch %d after off and on", s.Epoch)
	}
}

func TestKernelOperations(t *testing.T) {
	d := newDevice(t)
	if err := d.QueryRemoteGID(d.LocalGID()); err != nil {
		t.Error(err)
	}
	wantErrno(t, "another GID", d.QueryRemoteGID(NewGID()), unix.ENETUNREACH)
	if d.GetCHID() != 0xffff || !d.SupportDMBNoCopy() || !d.SupportsV2() {
		t.Error("wrong CHID, or no nocopy, or no v2")
	}
	for name, err := range map[string]error{
		"add_vlan_id": d.AddVLANID(1), "del_vlan_id": d.DelVLANID(1), "set_vlan_required": d.SetVLANRequired(),
		"reset_vlan_required": d.ResetVLANRequired(), "signal_event": d.SignalEvent(smc.GID{}, 0, 0, 0),
	} {
		wantErrno(t, name, err, unix.EOPNOTSUPP)
	}
}

func TestUnseenCaller(t *testing.T) {
	d := newDevice(t)
	h := register(t, d, 1, true, PageSize)
	unseen := Caller{}
	_, err := d.RegisterDMB(unseen, 2, false)
	wantErrno(t, "register", err, unix.EPERM)
	_, err = d.AttachDMB(unseen, h.DMB, ReadWrite)
	wantErrno(t, "attach", err, unix.EPERM)
	wantErrno(t, "unregister", d.UnregisterDMB(unseen, 1), unix.EPERM)
	wantErrno(t, "a knob", d.SetDMBType(unseen, Virtual), unix.EPERM)
}

func TestPrincipal(t *testing.T) {
	const admin = 1 << unix.CAP_SYS_ADMIN
	owner := Principal{UID: 7, userNS: 1, pidNS: 2, allowed: 0b1100}
	for _, c := range []struct {
		name string
		p    Principal
		want bool
	}{
		{"the same", owner, true},
		{"more capabilities", Principal{UID: 7, userNS: 1, pidNS: 2, allowed: 0b1110}, true},
		{"another uid", Principal{UID: 8, userNS: 1, pidNS: 2, allowed: 0b1100}, false},
		{"another user namespace", Principal{UID: 7, userNS: 9, pidNS: 2, allowed: 0b1100}, false},
		{"another pid namespace", Principal{UID: 7, userNS: 1, pidNS: 9, allowed: 0b1100}, false},
		{"a capability fewer", Principal{UID: 7, userNS: 1, pidNS: 2, allowed: 0b0100}, false},
	} {
		if got := c.p.mayTouch(owner); got != c.want {
			t.Errorf("%s may touch: %v", c.name, got)
		}
	}
	d := &Device{self: Principal{userNS: 1, pidNS: 2}, adminUID: 500}
	rootMounted := &Device{self: Principal{userNS: 1, pidNS: 2}}
	for _, c := range []struct {
		name string
		d    *Device
		p    Principal
		want bool
	}{
		{"CAP_SYS_ADMIN", d, Principal{UID: 3, userNS: 1, pidNS: 9, acting: admin}, true},
		{"CAP_SYS_ADMIN of another user namespace", d, Principal{UID: 0, userNS: 9, pidNS: 2, acting: admin}, false},
		{"CAP_SYS_ADMIN permitted, not effective", d, Principal{UID: 3, userNS: 1, pidNS: 2, allowed: admin}, false},
		{"the admin uid", d, Principal{UID: 500, userNS: 1, pidNS: 2}, true},
		{"the admin uid in a container", d, Principal{UID: 500, userNS: 1, pidNS: 9}, false},
		{"another uid", d, Principal{UID: 501, userNS: 1, pidNS: 2}, false},
		{"a container's root where root mounted", rootMounted, Principal{UID: 0, userNS: 1, pidNS: 2}, false},
	} {
		if got := c.d.privileged(c.p); got != c.want {
			t.Errorf("%s is privileged: %v", c.name, got)
		}
	}
}
