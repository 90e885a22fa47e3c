// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestConnsLies: what a process says of others' DMBs and processes is not shown.
func TestConnsLies(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	liar := startClient(t, asUser(1000))
	liar.Register(d, tokenOf(1), 16<<10)
	_, block := liar.Block(d)
	bystander := uint32(1)
	for _, p := range d.Stats().Device.Processes {
		if p.PID == by.owner.PID() {
			bystander = uint32(p.ID)
		}
	}
	liar.SetSlot(block, 0, connSlot(roleClient, "10.0.0.1:1", "10.0.0.2:2", bystanderToken, bystanderToken, 1))
	liar.SetSlot(block, 1, connSlot(roleClient, "10.0.0.1:1", "10.0.0.2:2", tokenOf(2), "ffffffffffffffff", 1))
	liar.SetSlot(block, 2, connSlot(roleClient, "10.0.0.1:1", "10.0.0.2:2", tokenOf(1), tokenOf(1), 1)) // nobody is attached
	liar.SetSlot(block, 3, groupSlot(roleServer, 1, bystander, "host"))
	list := liar.Conns(d)
	if len(list) != 3 {
		t.Fatalf("conns: %v", list)
	}
	for i, own := range []string{"-", "-", tokenOf(1)} {
		if f := list[i]; f[8] != own || f[9] != "-" || f[14] != "-" || (f[11] == "-") != (own == "-") || f[1] != "1000" || f[2] != fmt.Sprint(liar.PID()) {
			t.Errorf("line %d: %v", i, f)
		}
	}
	groups := d.LinkGroups()
	if len(groups) != 1 || groups[0][6] != "-" || groups[0][7] != "-" || groups[0][2] != "3" || groups[0][15] != "0" {
		t.Errorf("linkgroups: %v", groups)
	}
	liar.Kill()
	by.wantUndisturbed()
}

// TestConnsGarbage: whatever bytes lie in slots, the lines of others are as they were and each line has its fields.
func TestConnsGarbage(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	honest, hostile := startClient(t, asUser(1000)), startClient(t, asUser(1001))
	_, block := honest.Block(d)
	honest.SetSlot(block, 0, listenerSlot("127.0.0.1:1"))
	honest.SetSlot(block, 15, groupSlot(roleClient, 0x100, 1, "host"))
	const size = 256 << 10
	garbage := hostile.BigBlock(d, size)
	want := func() {
		t.Helper()
		if f := honest.Conns(d); len(f) != 1 || f[0][4] != "127.0.0.1:1" {
			t.Errorf("the honest one: %v", f)
		}
		listeners := 0
		for _, f := range d.Conns() {
			if f[1] == "1000" {
				listeners++
			}
			if f[8] != "-" || f[9] != "-" {
				t.Errorf("tokens: %v", f)
			}
		}
		groups := 0
		for _, f := range d.LinkGroups() {
			if f[3] == "1000" {
				groups++
			}
		}
		if listeners != 1 || groups != 1 {
			t.Errorf("%d listeners, %d groups of the honest one", listeners, groups)
		}
	}
	random := make([]byte, size-firstSlot)
	for round := range 4 {
		rand.Read(random)
		for i := 0; i < len(random); i += slotSize { // nearly right, so that much of it passes
			binary.NativeEndian.PutUint32(random[i:], uint32(2*round))
			random[i+4] = byte(i/slotSize) % 4
			if round > 0 {
				random[i+5], random[i+6], random[i+7], random[i+8] = random[i+5]%4, random[i+6]%4, random[i+7]%32, 4+random[i+8]%3
			}
			if round > 1 {
				copy(random[i+32:], "SITE-A"+strings.Repeat(" ", 26))
				copy(random[i+64:], []string{"a\nACTIVE 0 1", "a b", "\x1b[31mred", "fine"}[i/slotSize/4%4]+strings.Repeat(" ", 20))
			}
			if round == 3 {
				random[i]++ // for ever in the middle of a change
			}
		}
		wantErrno(t, "store", hostile.Store(garbage, random, firstSlot), nil)
		started := time.Now()
		want()
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("round %d took %v", round, took)
		}
		if n := len(hostile.Conns(d)); round == 3 && n != 0 {
			t.Errorf("%d slots in the middle of a change are listed", n)
		}
	}
	wantErrno(t, "holes", hostile.Madvise(garbage, unix.MADV_REMOVE), nil)
	want()
	honest.Kill()
	hostile.Kill()
	by.wantUndisturbed()
}

// TestConnsFull: every slot of a block is in use.
func TestConnsFull(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t, asUser(1000))
	const size, n = 1 << 20, 8176
	block := c.BigBlock(d, size)
	all := make([]byte, 0, n*slotSize)
	for i := range n {
		s := tcpSlot(fmt.Sprintf("10.0.0.1:%d", i+1), "10.0.0.2:80", 0x03010000, 0)
		s.u32(0, 2)
		all = append(all, s[:]...)
	}
	wantErrno(t, "store", c.Store(block, all, firstSlot), nil)
	started := time.Now()
	list := d.Conns()
	t.Logf("%d lines in %v", len(list), time.Since(started))
	if len(list) != n || list[0][4] != "10.0.0.1:1" || list[n-1][4] != fmt.Sprintf("10.0.0.1:%d", n) {
		t.Fatalf("%d lines", len(list))
	}
	if own := c.Conns(d); len(own) != n {
		t.Errorf("the user sees %d lines", len(own))
	}
	if text := d.dump("sockets"); strings.Count(text, "\n") != n+1 {
		t.Errorf("the tool shows %d lines", strings.Count(text, "\n"))
	}
}

// TestConnsKeptOpen: a user who opens a long list again and again gets no more of the daemon's memory than its share.
func TestConnsKeptOpen(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	c := startClient(t, asUser(1000))
	const size = 4 << 20
	block := c.BigBlock(d, size)
	all := make([]byte, 0, size-firstSlot)
	for range (size - firstSlot) / slotSize {
		s := tcpSlot("10.0.0.1:1", "10.0.0.2:80", 0x03010000, 0)
		s.u32(0, 2)
		all = append(all, s[:]...)
	}
	wantErrno(t, "store", c.Store(block, all, firstSlot), nil)
	var fds []int
	for {
		fd, err := c.Open(d.Path("conns"), unix.O_RDONLY)
		if err != nil {
			wantErrno(t, fmt.Sprintf("open number %d", len(fds)), err, unix.ENOMEM)
			break
		}
		if fds = append(fds, fd); len(fds) > 100 {
			t.Fatal("it can have it a hundred times")
		}
	}
	if len(fds) < 2 {
		t.Errorf("only %d times", len(fds))
	}
	if n := len(startClient(t, asUser(1001)).Conns(d)); n != 0 {
		t.Errorf("another user sees %d lines", n)
	}
	wantErrno(t, "close", c.Close(fds[0]), nil)
	waitFor(t, "room for another", func() error {
		fd, err := c.Open(d.Path("conns"), unix.O_RDONLY)
		if err == nil {
			err = c.Close(fd)
		}
		return err
	})
	c.Kill()
	by.wantUndisturbed()
}
