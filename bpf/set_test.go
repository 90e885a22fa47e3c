// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// A daemon that was killed while it made or removed a set leaves parts of one.
func TestUnfinished(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{makingName, removingName} {
		if err := os.MkdirAll(filepath.Join(h.base(), name, "links"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c, err := h.load(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	left := filepath.Join(h.base(), makingName, "links", "left")
	if err := h.attachOne(c.Programs[sockopsName], ebpf.AttachCGroupSockOps, left); err != nil {
		t.Fatal(err)
	}
	r := register(t, h, 1)
	wantSet(t, h, true)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	wantSet(t, h, false)
}

// Another build's programs are replaced where they are attached; marks, tags and half-done handshakes stay.
func TestUpdate(t *testing.T) {
	h := newHost(t)
	old := register(t, h, 1)
	l, at := listener(t, nil, loopback4, old.tag)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: testProgram, Type: ebpf.SockOps, AttachType: ebpf.AttachCGroupSockOps, License: "GPL",
		Instructions: doNothing(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pinned, err := link.LoadPinnedLink(linkPin(h.set(), sockopsName), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if err := pinned.Update(p); err != nil {
		t.Fatal(err)
	}
	if same, err := h.current(); same || err != nil {
		t.Fatal("the programs look the same after an update:", err)
	}
	register(t, h, 2)
	if same, err := h.current(); !same || err != nil {
		t.Error("the old program stays:", err)
	}
	wantSet(t, h, true)
	c := dial(t, nil, at, old.tag)
	wantAnswer(t, "client", c, smc(old.tag))
	wantAnswer(t, "server", accept(t, l), smc(old.tag))
}

// The layout that sets of one version share: a change of it needs a new Version. A change of the socket option's value needs a
// new number of the option, and a new Version.
func TestLayout(t *testing.T) {
	spec, err := loadIsmfs()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]ebpf.MapSpec{
		marksName:    {Type: ebpf.SkStorage, KeySize: 4, ValueSize: 24, MaxEntries: 0, Flags: unix.BPF_F_NO_PREALLOC},
		tagsName:     {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1024},
		answeredName: {Type: ebpf.LRUHash, KeySize: 8, ValueSize: 8, MaxEntries: 16384},
		stateName:    {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 3},
	} {
		got := spec.Maps[name]
		if got.Type != want.Type || got.KeySize != want.KeySize || got.ValueSize != want.ValueSize ||
			got.MaxEntries != want.MaxEntries || got.Flags != want.Flags {
			t.Errorf("%s: %v of version %d", name, got, Version)
		}
	}
	var option uint32
	if err := spec.Variables[ismfsVarOptionName].Get(&option); err != nil || option != smcopt.Name {
		t.Errorf("option %x (%v), want %x", option, err, smcopt.Name)
	}
}

func TestOtherSet(t *testing.T) {
	h := newHost(t)
	register(t, h, 1)
	elsewhere := h // the same cgroup, seen from another mount namespace with a bpffs of its own
	elsewhere.bpffs = t.TempDir()
	if err := elsewhere.mountBPFFS(); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(elsewhere.bpffs, 0)
	if _, err := elsewhere.attach(testTag(2)); !errors.Is(err, ErrOtherSet) {
		t.Error("another bpffs:", err)
	}
	var r Report
	if err := elsewhere.probe(&r); !errors.Is(err, ErrOtherSet) {
		t.Error("probe:", err)
	}
	if _, err := os.Stat(elsewhere.base()); !errors.Is(err, os.ErrNotExist) {
		t.Error("something is left in that bpffs:", err)
	}
}

func TestOtherVersion(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.base(), "v0")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := h.attach(testTag(1)); !errors.Is(err, ErrOtherSet) {
		t.Error(err)
	}
	os.RemoveAll(h.base())
}

func TestTagsFull(t *testing.T) {
	h := newHost(t)
	d := startDaemon(t, h, testTag(1))
	d.kill()
	r := register(t, h, 2)
	for i := 0; ; i++ {
		err := r.tags.Update(key(smcopt.Tag{0xff, byte(i >> 8), byte(i)}), uint64(0), ebpf.UpdateNoExist)
		if errors.Is(err, unix.E2BIG) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	register(t, h, 3) // in place of the dead
	if err := tryMark((*netns)(nil).socket(t, loopback4), testTag(1)); err != unix.ENODEV {
		t.Error("mark for a device that had to go:", err)
	}
	if _, err := h.attach(testTag(4)); !errors.Is(err, unix.E2BIG) {
		t.Error("one too many:", err)
	}
}

// What somebody has detached by hand is attached again by the next daemon.
func TestDetachedByHand(t *testing.T) {
	h := newHost(t)
	register(t, h, 1)
	l, err := link.LoadPinnedLink(linkPin(h.set(), sockopsName), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
	if n := len(query(t, h.cgroup)); n != len(attachments)-1 {
		t.Errorf("%d programs are attached", n)
	}
	register(t, h, 2)
	wantSet(t, h, true)
}
