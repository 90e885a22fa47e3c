// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A link is two clients that have one DMB each and are attached to the other's, with bells open.
type link struct {
	a, b         *client
	aEnd, bEnd   RingArgs
	aOwn, bOwn   int // descriptors of their own DMBs
	size         int
	aText, bText string // tokens
}

func newLink(t *testing.T, d *device, copied bool) *link {
	t.Helper()
	l := &link{a: startClient(t), b: startClient(t), size: 64 << 10, aText: "000000000000da1a", bText: "000000000000da1b"}
	l.aOwn, l.aEnd.Own = l.a.Register(d, l.aText, l.size)
	l.bOwn, l.bEnd.Own = l.b.Register(d, l.bText, l.size)
	l.join(d, l.a, &l.aEnd, l.aText, l.bText, copied)
	l.join(d, l.b, &l.bEnd, l.bText, l.aText, copied)
	return l
}

func (l *link) join(d *device, c *client, end *RingArgs, own, peer string, copied bool) {
	const bell = unix.O_RDWR | unix.O_NONBLOCK
	end.OwnBell, end.PeerBell = c.MustOpen(d.Path("bells", own), bell), c.MustOpen(d.Path("bells", peer), bell)
	if copied {
		end.PeerFD = c.MustOpen(d.Path("dmbs", peer), unix.O_WRONLY)
		return
	}
	end.PeerFD = c.MustOpen(d.Path("dmbs", peer), unix.O_RDWR)
	end.Peer = c.MustMap(end.PeerFD, l.size)
}

// handlesWork uses everything that was open when the daemon died.
func (l *link) handlesWork(t *testing.T, copied bool) {
	t.Helper()
	// A second mapping of the receiver's own DMB, made now, shows what the other side writes now.
	m, err := l.b.Mmap(l.bOwn, l.size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		t.Fatalf("new mmap: %v", err)
	}
	if err := l.a.Pwrite(l.aEnd.PeerFD, []byte("pwritten"), 4096); err != nil {
		t.Fatalf("pwrite: %v", err)
	}
	if got, err := l.b.Load(m, 8, 4096); err != nil || string(got) != "pwritten" {
		t.Errorf("the new mapping shows %q, %v", got, err)
	}
	if got, err := l.b.Pread(l.bOwn, 8, 4096); err != nil || string(got) != "pwritten" {
		t.Errorf("pread: %q, %v", got, err)
	}
	if !copied {
		if m, err = l.a.Mmap(l.aEnd.PeerFD, l.size, unix.PROT_READ); err != nil {
			t.Fatalf("new mmap by the peer: %v", err)
		}
		if got, err := l.a.Load(m, 8, 4096); err != nil || string(got) != "pwritten" {
			t.Errorf("the peer's new mapping shows %q, %v", got, err)
		}
	}
	if err := l.a.Ring(l.aEnd.PeerBell); err != nil {
		t.Errorf("ringing an open bell: %v", err)
	}
	if err := l.b.Poll(l.bEnd.OwnBell, patience); err != nil {
		t.Errorf("hearing an open bell: %v", err)
	}
}

// TestDaemonKilledInFlow: with the daemon dead, data flows on through what is open; only paths fail. Then --replace brings
// the device back beside the connection that still lives.
func TestDaemonKilledInFlow(t *testing.T) {
	for _, row := range []struct {
		name, option string
		copied       bool
	}{
		{"mapped, futex", "--dmb-copy=0", false},
		{"pwrite, bells", "--dmb-copy=1", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := mountDevice(t, row.option)
			gid := d.Read("gid")
			l := newLink(t, d, row.copied)
			l.aEnd.Seed = 42
			l.b.StartRing(false, l.bEnd)
			l.a.StartRing(true, l.aEnd)
			const some = 16 << 20
			l.b.WaitRing(some)
			d.Kill()
			l.b.WaitRing(l.b.RingState().Bytes + 2*some)
			finish(t, l.a, l.b)
			l.handlesWork(t, row.copied)

			if _, err := l.b.Fstat(l.bOwn); err != unix.ENOTCONN {
				t.Errorf("fstat: %v, want ENOTCONN", err)
			}
			for _, path := range []string{d.Path("gid"), d.Path("dmbs", l.aText), d.Path("bells", l.aText)} {
				if _, err := l.a.Open(path, unix.O_RDONLY|unix.O_NONBLOCK); err != unix.ENOTCONN {
					t.Errorf("open %s: %v, want ENOTCONN", path, err)
				}
			}
			wantDead(t, d.Point)
			command(t, "ismfs", "mount", d.Point).want(t, 5, "--replace")

			command(t, "ismfs", "mount", "--replace", d.Point).want(t, 0)
			if again := d.Read("gid"); again == gid {
				t.Error("the device came back with the GID of the dead one")
			}
			command(t, "ismfs", "mount", "--replace", d.Point).want(t, 6, "live")
			l.handlesWork(t, row.copied)
			d.WantCount(0)
			l.a.Register(d, l.bText, l.size) // the new device knows nothing of the old one's tokens
			d.WantCount(1)
			l.a.Kill()
			d.WantNothing()
		})
	}
}

// wantDead checks what `ismfs info` says of a dead mount.
func wantDead(t *testing.T, point string) {
	t.Helper()
	if r := command(t, "ismfs", "info"); r.Code != 0 || !strings.Contains(r.Stdout, point) || !strings.Contains(r.Stdout, "dead") {
		t.Errorf("ismfs info: %+v", r)
	}
	var infos []struct {
		Point string `json:"mount_point"`
		Alive bool
		Error string
	}
	if err := json.Unmarshal([]byte(command(t, "ismfs", "info", "--json").Stdout), &infos); err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.Point == point {
			if i.Alive || !strings.Contains(i.Error, "--replace") {
				t.Errorf("ismfs info --json: %+v", i)
			}
			return
		}
	}
	t.Errorf("ismfs info --json does not list %s: %+v", point, infos)
}

// TestReplaceReachesContainers is the layout that the documentation recommends for containers: they get the parent of the
// mount point, bind-mounted rslave, so that what is mounted there later reaches them.
func TestReplaceReachesContainers(t *testing.T) {
	parent := tempDir(t)
	point := filepath.Join(parent, "host")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(parent, parent, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	takeDown(t, parent)
	if err := unix.Mount("", parent, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	d := mountDeviceOn(t, point)

	inside := tempDir(t)
	c := startClient(t, inNamespaces(unix.CLONE_NEWNS))
	c.Mount("", "/", unix.MS_REC|unix.MS_SLAVE)
	c.Mount(parent, inside, unix.MS_BIND|unix.MS_REC)
	gidFile := filepath.Join(inside, "host", "devices", "loopback-ism", "gid")
	before, err := c.ReadFile(gidFile)
	if err != nil || strings.TrimSpace(before) != d.Read("gid") {
		t.Fatalf("the container reads gid %q, %v", before, err)
	}
	if fileExists(filepath.Join(inside, "host")) {
		t.Fatal("the container's mount is visible outside: it is no namespace of its own")
	}
	d.Kill()
	if _, err := c.ReadFile(gidFile); err != unix.ENOTCONN {
		t.Fatalf("after the daemon's death: %v, want ENOTCONN", err)
	}
	command(t, "ismfs", "mount", "--replace", point).want(t, 0)
	after, err := c.ReadFile(gidFile)
	if err != nil || after == before || strings.TrimSpace(after) != d.Read("gid") {
		t.Fatalf("after --replace the container reads gid %q, %v; outside it is %q", after, err, d.Read("gid"))
	}
	fd := c.MustOpen(filepath.Join(inside, "host", "devices", "loopback-ism", "dmbs", "000000000000da2a"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err := c.Truncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	d.WantCount(1)
	c.Kill()
	d.WantNothing()
}

// TestTwoMounts: two mounts are two devices.
func TestTwoMounts(t *testing.T) {
	one, two := mountDevice(t), mountDevice(t)
	if one.Read("gid") == two.Read("gid") {
		t.Error("two devices have one GID")
	}
	c := startClient(t)
	const token = "000000000000da3a"
	_, m1 := c.Register(one, token, 4096)
	if _, err := c.Open(two.Path("dmbs", token), unix.O_RDWR); err != unix.ENOENT {
		t.Errorf("open of the other's token: %v, want ENOENT", err)
	}
	_, m2 := c.Register(two, token, 4096)
	if err := c.Store(m1, []byte("one"), 32); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Load(m2, 3, 32); err != nil || !bytes.Equal(got, make([]byte, 3)) {
		t.Errorf("the other device's DMB of the same token shows %q, %v", got, err)
	}
	if err := one.Write("active", "0"); err != nil {
		t.Fatal(err)
	}
	if s := two.Read("active"); s != "1" {
		t.Errorf("the other device's active is %s", s)
	}
	two.WantCount(1)
}
