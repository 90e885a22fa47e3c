// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// netNS is the inode number of a process's network namespace.
func netNS(t *testing.T, pid int) string {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino)
}

// TestConns: a connection between processes of two users, as both describe it, in the files and in the tools.
func TestConns(t *testing.T) {
	d := mountDevice(t)
	server, cl := startClient(t), startClient(t, asUser(1000))
	const a, b = "ab8ece266549dd22", "4645ce4798b5ef0b"
	fdA, ringA := server.Register(d, a, 64<<10)
	fdB, _ := cl.Register(d, b, 128<<10)
	mA := cl.MustMap(cl.MustOpen(d.Path("dmbs", a), readWrite), 64<<10)
	server.MustMap(server.MustOpen(d.Path("dmbs", b), readWrite), 128<<10)
	header := binary.NativeEndian.AppendUint16(nil, 1) // producer 0001:00000002, consumer 0003:00000004, flags 80:40
	header = append(binary.NativeEndian.AppendUint32(header, 2), 0, 0)
	header = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint16(header, 3), 4)
	wantErrno(t, "the header", cl.Store(mA, append(header, 0x80, 0x40), 8), nil)

	_, serverBlock := server.Block(d)
	_, clientBlock := cl.Block(d)
	serverID, clientID := server.Word(serverBlock, 8), cl.Word(clientBlock, 8)
	server.SetSlot(serverBlock, 0, listenerSlot("[::]:7777"))
	server.SetSlot(serverBlock, 1, groupSlot(roleServer, 0x100, clientID, "host"))
	s := connSlot(roleServer, "127.0.0.1:7777", "127.0.0.1:48630", a, b, 0x100)
	s[9] = 2 // own writing is shut
	binary.NativeEndian.PutUint64(s[80:], 77)
	server.SetSlot(serverBlock, 2, s)
	cl.SetSlot(clientBlock, 0, groupSlot(roleClient, 0x100, serverID, "host"))
	cl.SetSlot(clientBlock, 15, connSlot(roleClient, "127.0.0.1:48630", "127.0.0.1:7777", b, a, 0x100))
	cl.SetSlot(clientBlock, 14, tcpSlot("[2001:db8::1]:1", "[2001:db8::2]:80", 0x05000000, 0x03030008))

	ns := netNS(t, os.Getpid())
	byState := map[string]string{}
	for _, f := range d.Conns() {
		byState[f[1]+f[6]] = strings.Join(f, " ")
	}
	const zero = "0000:00000000 0000:00000000 00:00"
	const written = "0001:00000002 0003:00000004 80:40"
	for key, want := range map[string]string{
		"0LISTEN": fmt.Sprintf("LISTEN 0 %d %s [::]:7777 - LISTEN - - - - - - - - - - - 0 <-> 0 0 0 0 %d", server.PID(), ns, serverID),
		"0SMCD": fmt.Sprintf("ACTIVE 0 %d %s 127.0.0.1:7777 127.0.0.1:48630 SMCD - %s %s 00000100 %s %s server 77 <-W 131040 65504 131040 %s %d",
			server.PID(), ns, a, b, written, zero, server.number(fdA), serverID),
		"1000SMCD": fmt.Sprintf("ACTIVE 1000 %d %s 127.0.0.1:48630 127.0.0.1:7777 SMCD - %s %s 00000100 %s %s client 0 <-> 65504 131040 65504 %s %d",
			cl.PID(), ns, b, a, zero, written, cl.number(fdB), clientID),
		"1000TCP": fmt.Sprintf("ACTIVE 1000 %d %s [2001:db8::1]:1 [2001:db8::2]:80 TCP 0x05000000/0x03030008 - - - - - - - - - client 0 <-> 0 0 0 0 %d",
			cl.PID(), ns, clientID),
	} {
		if byState[key] != want {
			t.Errorf("%s:\n%s\nwant\n%s", key, byState[key], want)
		}
	}
	if len(byState) != 4 {
		t.Errorf("conns has %d lines", len(byState))
	}
	groups := d.LinkGroups()
	if len(groups) != 2 {
		t.Fatalf("linkgroups has %v", groups)
	}
	if groups[0][5] != fmt.Sprint(serverID) { // ids begin at random and go round
		groups[0], groups[1] = groups[1], groups[0]
	}
	wantLine(t, "the server's", groups[0], fmt.Sprintf("00000100 server 1 0 %d %d %d %d 2 1 2 host SITE-A 0 0 65536",
		server.PID(), serverID, cl.PID(), clientID))
	wantLine(t, "the client's", groups[1], fmt.Sprintf("00000100 client 1 1000 %d %d %d %d 2 1 2 host SITE-A 0 0 131072",
		cl.PID(), clientID, server.PID(), serverID))
	wantTools(t, d)
	wantOwnOnly(t, d, cl)

	cl.Kill()
	waitFor(t, "the client's lines to go", func() error {
		if n := len(d.Conns()) + len(d.LinkGroups()); n != 3 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	for _, f := range d.Conns() {
		if f[6] == "SMCD" && (f[8] != a || f[9] != "-" || f[14] != "-") {
			t.Errorf("without a peer: %v", f)
		}
	}
	if word := server.Word(ringA, 8); word == 0 {
		t.Error("the header is gone")
	}
	server.Kill()
	d.WantNothing()
	if text := d.Read("conns") + d.Read("linkgroups"); text != "" {
		t.Errorf("left is %q", text)
	}
}

// wantTools: the same connection in the words of smcd and smcss.
func wantTools(t *testing.T, d *device) {
	t.Helper()
	for _, c := range []struct {
		args  []string
		wants []string
	}{
		{[]string{"device"}, []string{"ffff   Yes       2 "}},
		{[]string{"linkgroup"}, []string{"LG-ID    VLAN  #Conns  PNET-ID \n", "00000100    0       1                   \n"}},
		{[]string{"-d", "linkgroup"}, []string{"Peer-Host: host\n", "Peer-OS  : LINUX\n", "DMB      : 131072 B\n"}},
		{[]string{"sockets", "-l"}, []string{"LISTEN         00000 0000000 0.0.0.0:7777            \n"}},
		{[]string{"sockets", "-d"}, []string{
			"ACTIVE         00000 0000077 127.0.0.1:7777          127.0.0.1:48630         0000 SMCD  <-W  ",
			" 0001ffe0 0000ffe0 0001ffe0 0001:00000002 0003:00000004 80:40   0000:00000000 0000:00000000 00:00   ",
			"2001:db8::1:1           2001:db8::2:80          0000 TCP 0x05000000/0x03030008\n",
		}},
		{[]string{"sockets", "-D"}, []string{" ab8ece266549dd22 " + strings.ReplaceAll(d.Read("gid"), "-", "")[:16] + " 4645ce4798b5ef0b 00000100 \n"}},
	} {
		text := d.dump(c.args...)
		for _, want := range c.wants {
			if !strings.Contains(text, want) {
				t.Errorf("smcd-dump %v has no %q:\n%s", c.args, want, text)
			}
		}
	}
}

// wantOwnOnly: a user sees its own lines, others see none.
func wantOwnOnly(t *testing.T, d *device, cl *client) {
	t.Helper()
	sibling := startClient(t, asUser(1000))
	for who, c := range map[string]*client{"the process itself": cl, "another of its user": sibling} {
		list := c.Conns(d)
		if len(list) != 2 || list[0][1] != "1000" || list[1][1] != "1000" {
			t.Errorf("%s sees %v", who, list)
		}
	}
	for who, c := range map[string]*client{
		"a stranger":                 startClient(t, asUser(1001)),
		"root of a container":        startClient(t, inContainer(unix.CLONE_NEWPID)),
		"root of a user namespace":   startClient(t, inUserNamespace(1000, unix.CLONE_NEWPID)),
		"the user in one of its own": startClient(t, inUserNamespace(1000, 0)),
	} {
		groups, err := c.ReadFile(d.Path("linkgroups"))
		if list := c.Conns(d); len(list) != 0 || groups != "" || err != nil {
			t.Errorf("%s sees %v and %q, %v", who, list, groups, err)
		}
	}
}

// TestConnsOtherNamespace: the network namespace is that of the process, not the reader's.
func TestConnsOtherNamespace(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t, inContainer(unix.CLONE_NEWNET))
	_, block := c.Block(d)
	c.SetSlot(block, 0, tcpSlot("10.0.0.1:1", "10.0.0.2:2", 0x03010000, 0))
	list := d.Conns()
	if len(list) != 1 || list[0][3] != netNS(t, c.PID()) || list[0][3] == netNS(t, os.Getpid()) || list[0][7] != "0x03010000" {
		t.Errorf("conns: %v", list)
	}
}

// TestConnsWhileKilled: whatever comes and goes meanwhile, each line is whole, and those of the dead do not stay.
func TestConnsWhileKilled(t *testing.T) {
	d := mountDevice(t)
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				d.Conns()
				d.LinkGroups()
			}
		}
	})
	for round := range 5 {
		var clients []*client
		for i := range 3 {
			c := startClient(t, asUser(uint32(1000+i)))
			c.Register(d, tokenOf(10*round+i), 16<<10)
			_, block := c.Block(d)
			c.SetSlot(block, i, connSlot(roleClient, "10.0.0.1:1", "10.0.0.2:2", tokenOf(10*round+i), tokenOf(10*round+i), 1))
			c.SetSlot(block, i+1, groupSlot(roleClient, 1, 7, "host"))
			clients = append(clients, c)
		}
		for _, c := range clients {
			c.Kill()
		}
	}
	close(stop)
	reader.Wait()
	d.WantNothing()
	if n := len(d.Conns()) + len(d.LinkGroups()); n != 0 {
		t.Errorf("%d lines are left", n)
	}
}

// TestSettings: a knob that turns is told to every process, in its head, and so is a change of the user EIDs.
func TestSettings(t *testing.T) {
	const offWord, offSettings = 12, 20
	d := mountDevice(t, "--dmb-type=1")
	c := startClient(t, asUser(1000))
	_, block := c.Block(d)
	want := func(v uint32) {
		t.Helper()
		if got := c.Word(block, offSettings); got != v {
			t.Errorf("settings are %d, not %d", got, v)
		}
	}
	want(1)
	for _, step := range []struct {
		control, value string
		settings       uint32
	}{{"dmb_copy", "1", 3}, {"dmb_type", "0", 2}, {"dmb_copy", "0", 0}, {"dmb_type", "1", 1}} {
		sleeper := c.Sleeper(block, offWord)
		wantErrno(t, step.control, d.Write(step.control, step.value), nil)
		wantWoken(t, sleeper)
		want(step.settings)
	}
	sleeper := c.Sleeper(block, offWord)
	wantErrno(t, "ueid", d.Write("ueid", "+SITE-A"), nil)
	wantWoken(t, sleeper)
}
