// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDMBCopy: a write takes effect for DMBs registered after it, and the device holds the peer to the mode.
func TestDMBCopy(t *testing.T) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t, asUser(1000))
	const size = 64 << 10
	owner.Register(d, tokenOf(0), size)
	wantErrno(t, "dmb_copy 1", d.Write("dmb_copy", "1"), nil)
	_, mapped := owner.Register(d, tokenOf(1), size)
	owner.Register(d, tokenOf(2), 4096)
	wantErrno(t, "dmb_copy 0", d.Write("dmb_copy", "0"), nil)
	owner.Register(d, tokenOf(3), size)

	for n, want := range []error{nil, unix.EACCES, nil, nil} { // 2 is a doorbell page, merged in either mode
		fd, err := peer.Open(d.Path("dmbs", tokenOf(n)), readWrite)
		wantErrno(t, fmt.Sprintf("the peer opens DMB %d O_RDWR", n), err, want)
		if err == nil {
			peer.MustMap(fd, 4096)
		}
	}
	path := d.Path("dmbs", tokenOf(1))
	_, err := peer.Open(path, unix.O_RDONLY)
	wantErrno(t, "the peer opens it O_RDONLY", err, unix.EACCES)
	fd := peer.MustOpen(path, unix.O_WRONLY) // the refusals before have not taken the place
	for _, prot := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_READ | unix.PROT_WRITE} {
		_, err := peer.Mmap(fd, size, prot)
		wantErrno(t, fmt.Sprintf("mmap with %#x of a write-only handle", prot), err, unix.EACCES)
	}
	_, err = peer.Pread(fd, 8, 0)
	wantErrno(t, "read from a write-only handle", err, unix.EBADF)
	for _, flags := range []int{unix.O_RDWR, unix.O_RDONLY} {
		_, err := peer.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags)
		wantErrno(t, fmt.Sprintf("open again through /proc with %#x", flags), err, unix.EACCES)
	}
	_, err = peer.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY)
	wantErrno(t, "open again through /proc", err, unix.EBUSY)
	for _, off := range []int64{0, 8, 32, size - 8} {
		text := []byte(fmt.Sprintf("%08d", off))
		wantErrno(t, "pwrite", peer.Pwrite(fd, text, off), nil)
		if b, err := owner.Load(mapped, 8, off); err != nil || !bytes.Equal(b, text) {
			t.Errorf("the owner's mapping holds %q, %v at %d", b, err, off)
		}
	}
	wantErrno(t, "pwrite beyond the end", peer.Pwrite(fd, []byte("12345678"), size), unix.EPERM)
}

// TestDMBType: 0 asks for huge pages and says what came of it, 1 does not; what was registered before keeps what it has.
func TestDMBType(t *testing.T) {
	d := mountDevice(t, "--dmb-type=0")
	c := startClient(t)
	const size, huge = 4 << 20, 2 << 20
	// as docs/dmb-format.md 1.5 says: at a 2 MiB boundary, MADV_HUGEPAGE, populate, MADV_COLLAPSE
	make := func(n int, collapse bool) int64 {
		fd := c.MustOpen(d.Path("dmbs", tokenOf(n)), register)
		wantErrno(t, "size", c.Truncate(fd, size), nil)
		room, err := c.Syscall(unix.SYS_MMAP, 0, size+huge, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0)
		if err != nil {
			t.Fatal(err)
		}
		at := (room + huge - 1) &^ (huge - 1)
		if _, err := c.Syscall(unix.SYS_MMAP, at, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED, fd, 0); err != nil {
			t.Fatal(err)
		}
		advice := []int{unix.MADV_NOHUGEPAGE, unix.MADV_POPULATE_WRITE}
		if collapse {
			advice = []int{unix.MADV_HUGEPAGE, unix.MADV_POPULATE_WRITE, unix.MADV_COLLAPSE}
		}
		for _, a := range advice {
			if _, err := c.Syscall(unix.SYS_MADVISE, at, size, a); err != nil {
				t.Logf("madvise %d: %v", a, err)
			}
		}
		st, err := c.Fstat(fd)
		if err != nil || st.Size != size || st.Blocks*512 != size {
			t.Errorf("DMB %d has size %d and %d bytes of pages, %v", n, st.Size, st.Blocks*512, err)
		}
		return st.Blksize
	}
	first := make(0, true)
	if first != huge {
		t.Logf("this machine gave no huge pages: %d", first)
	}
	wantErrno(t, "dmb_type 1", d.Write("dmb_type", "1"), nil)
	if second := make(1, false); second != 4096 {
		t.Errorf("a DMB of type 1 says that it has pages of %d", second)
	}
	if st, err := c.Stat(d.Path("dmbs", tokenOf(0))); err != nil || st.Blksize != first {
		t.Errorf("the DMB of before says %d now, %v; it said %d", st.Blksize, err, first)
	}
	wantErrno(t, "dmb_type 0", d.Write("dmb_type", "0"), nil)
	if third := make(2, true); third != first {
		t.Errorf("after the write of 0 a DMB gets pages of %d, the first one got %d", third, first)
	}
}

// Places in a procs block's head (docs/dmb-format.md, 3.1) and in a DMB.
const (
	offBlockWord, offBlockState, offBlockEpoch = 12, 16, 24
	offSignal                                  = 24
)

// pair is an owner and a peer on one DMB, with a procs block each.
type pair struct {
	owner, peer             *client
	ownFD, own, ownBlock    int
	peerFD, mine, peerBlock int
}

func startPair(t *testing.T, d *device, token string, size int) *pair {
	t.Helper()
	p := &pair{owner: startClient(t), peer: startClient(t)}
	p.ownFD, p.own = p.owner.Register(d, token, size)
	_, p.ownBlock = p.owner.Block(d)
	_, p.peerBlock = p.peer.Block(d)
	p.peerFD = p.peer.MustOpen(d.Path("dmbs", token), readWrite)
	p.mine = p.peer.MustMap(p.peerFD, size)
	return p
}

// wantAlive fails unless bytes still go from the peer to the owner.
func (p *pair) wantAlive(text string) {
	t := p.owner.t
	t.Helper()
	wantErrno(t, "store", p.peer.Store(p.mine, []byte(text), 32), nil)
	if b, err := p.owner.Load(p.own, len(text), 32); err != nil || string(b) != text {
		t.Errorf("the owner reads %q, %v; not %q", b, err, text)
	}
}

// wantLinks fails unless both sides see so many references.
func (p *pair) wantLinks(n uint64) {
	t := p.owner.t
	t.Helper()
	a, err := p.owner.Fstat(p.ownFD)
	wantErrno(t, "fstat", err, nil)
	b, err := p.peer.Fstat(p.peerFD)
	wantErrno(t, "fstat", err, nil)
	if a.Nlink != n || b.Nlink != n {
		t.Errorf("st_nlink is %d for the owner and %d for the peer, not %d", a.Nlink, b.Nlink, n)
	}
}

func (p *pair) wantHead(state uint32, epoch uint64) {
	t := p.owner.t
	t.Helper()
	for _, b := range []struct {
		c     *client
		block int
	}{{p.owner, p.ownBlock}, {p.peer, p.peerBlock}} {
		if s, e := b.c.Word(b.block, offBlockState), b.c.Word64(b.block, offBlockEpoch); s != state || e != epoch {
			t.Errorf("a procs block has state %d and epoch %d, not %d and %d", s, e, state, epoch)
		}
	}
}

// TestActive goes through the states, with what each means for new DMBs, for those that are there, and for who waits.
func TestActive(t *testing.T) {
	d := mountDevice(t)
	p := startPair(t, d, tokenOf(0), 64<<10)
	gid := d.Read("gid")
	newDMB := func(n int, want error) {
		t.Helper()
		_, err := p.owner.Open(d.Path("dmbs", tokenOf(n)), register)
		wantErrno(t, "a new DMB", err, want)
		_, err = p.owner.Open(d.Path("dmbs", tokenOf(n+100)), unix.O_RDWR|unix.O_CREAT)
		wantErrno(t, "a new DMB without a lease", err, want)
	}
	wantStats := func(state string, epoch uint64) {
		t.Helper()
		if s := d.Stats().Device; s.State != state || s.Epoch != epoch {
			t.Errorf("stats say %s and epoch %d, not %s and %d", s.State, s.Epoch, state, epoch)
		}
	}
	other := startClient(t)
	other.Register(d, tokenOf(50), 4096)
	unsized := other.MustOpen(d.Path("dmbs", tokenOf(51)), register)
	p.owner.SetCounter(p.ownBlock, 60, 1000)
	p.wantLinks(2)
	p.wantHead(1, 1)
	wantStats("active", 1)

	// drain: nothing new, what lives goes on, and may still be attached
	word := p.owner.Sleeper(p.ownBlock, offBlockWord)
	wantErrno(t, "drain", d.Write("active", "drain"), nil)
	wantWoken(t, word)
	p.wantHead(2, 1)
	wantStats("draining", 1)
	newDMB(1, unix.ENODEV)
	p.wantLinks(2)
	p.wantAlive("while draining")
	p.peer.MustOpen(d.Path("dmbs", tokenOf(50)), readWrite)
	wantErrno(t, "the size of a DMB made before", other.Truncate(unsized, 4096), nil)
	if d.Read("xfer_bytes") != "1000" || d.Read("dmbs_cnt") != "3" {
		t.Errorf("xfer_bytes %s, dmbs_cnt %s", d.Read("xfer_bytes"), d.Read("dmbs_cnt"))
	}

	// drain and on again: the same epoch
	wantErrno(t, "active 1", d.Write("active", "1"), nil)
	p.wantHead(1, 1)
	newDMB(2, nil)
	wantErrno(t, "active 1 again", d.Write("active", "1"), nil)
	p.wantHead(1, 1)
	if d.Read("xfer_bytes") != "1000" {
		t.Errorf("xfer_bytes is %s after drain", d.Read("xfer_bytes"))
	}

	// off: all sleepers are woken, every DMB is withdrawn, its memory stays with who has it
	late := other.MustOpen(d.Path("dmbs", tokenOf(52)), register)
	sleepers := []<-chan error{p.owner.Sleeper(p.own, offSignal), p.peer.Sleeper(p.peerBlock, offBlockWord)}
	wantErrno(t, "active 0", d.Write("active", "0"), nil)
	for _, s := range sleepers {
		wantWoken(t, s)
	}
	p.wantHead(0, 2)
	wantStats("inactive", 2)
	p.wantLinks(0)
	p.wantAlive("after the end")
	newDMB(3, unix.ENODEV)
	for _, where := range []string{"dmbs", "bells"} {
		if names, err := other.ReadDir(d.Path(where)); err != nil || len(names) != 0 {
			t.Errorf("%s lists %v, %v", where, names, err)
		}
		_, err := other.Open(d.Path(where, tokenOf(0)), readWrite)
		if err != unix.ENODEV { // while the kernel remembers the name
			wantErrno(t, "a withdrawn DMB looked up in "+where, err, unix.ENOENT)
		}
	}
	_, err := p.peer.Open(fmt.Sprintf("/proc/self/fd/%d", p.peerFD), unix.O_RDWR)
	wantErrno(t, "a withdrawn DMB attached through /proc", err, unix.ENODEV)
	wantErrno(t, "the size of a withdrawn DMB", other.Truncate(late, 4096), unix.ENODEV)
	wantErrno(t, "drain from off", d.Write("active", "drain"), unix.EINVAL)
	wantErrno(t, "active 0 again", d.Write("active", "0"), nil)
	p.wantHead(0, 2)

	// on again: a new epoch, a new count, the same GID; old tokens stay used
	word = p.owner.Sleeper(p.ownBlock, offBlockWord)
	wantErrno(t, "active 1", d.Write("active", "1"), nil)
	wantWoken(t, word)
	p.wantHead(1, 3)
	wantStats("active", 3)
	if d.Read("gid") != gid || d.Read("xfer_bytes") != "0" {
		t.Errorf("gid %s (it was %s), xfer_bytes %s", d.Read("gid"), gid, d.Read("xfer_bytes"))
	}
	p.wantLinks(0)
	_, err = p.owner.Open(d.Path("dmbs", tokenOf(0)), register)
	wantErrno(t, "the token of a withdrawn DMB", err, unix.EEXIST)
	newDMB(4, nil)
	p.owner.SetCounter(p.ownBlock, 60, 1234)
	if d.Read("xfer_bytes") != "234" {
		t.Errorf("xfer_bytes is %s, not what has moved since the activation", d.Read("xfer_bytes"))
	}
	for _, c := range []*client{p.owner, p.peer, other} {
		c.Kill()
	}
	wantErrno(t, "rm", unix.Unlink(d.Path("dmbs", tokenOf(104))), nil)
	d.WantNothing()
}
