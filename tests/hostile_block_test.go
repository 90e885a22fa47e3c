// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBlockOfAnother: what other processes, of the same uid too, can do to a procs block: look.
func TestBlockOfAnother(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	owner, sibling, stranger := startClient(t, asUser(1000)), startClient(t, asUser(1000)), startClient(t, asUser(1001))
	path := d.Path("procs", owner.Self(d))
	_, err := sibling.Open(path, register)
	wantErrno(t, "a block in another's name", err, unix.EPERM)
	fd := owner.MustOpen(path, unix.O_RDWR|unix.O_CREAT)
	_, err = sibling.Open(path, unix.O_RDONLY)
	wantErrno(t, "a block without a size", err, unix.EAGAIN)
	_, err = sibling.Syscall(unix.SYS_TRUNCATE, path, 8192)
	wantErrno(t, "the size of another's block", err, unix.EPERM)
	wantErrno(t, "size", owner.Truncate(fd, blockSize), nil)
	block := owner.MustMap(fd, blockSize)
	owner.SetCounter(block, counterTxBytes, 77)

	look := sibling.MustOpen(path, unix.O_RDONLY)
	m, err := sibling.Mmap(look, blockSize, unix.PROT_READ)
	wantErrno(t, "to look", err, nil)
	if n := sibling.Word64(m, 64+8*counterTxBytes); n != 77 {
		t.Errorf("the sibling reads %d", n)
	}
	_, err = sibling.Mmap(look, blockSize, unix.PROT_READ|unix.PROT_WRITE)
	wantErrno(t, "mmap for writing", err, unix.EACCES)
	wantErrno(t, "pwrite", sibling.Pwrite(look, []byte("x"), 64), unix.EBADF)
	wantErrno(t, "ftruncate", sibling.Truncate(look, 8192), unix.EINVAL) // a read-only handle
	for _, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDWR | unix.O_CREAT} {
		for _, where := range []string{path, fmt.Sprintf("/proc/self/fd/%d", look)} {
			_, err := sibling.Open(where, flags)
			wantErrno(t, fmt.Sprintf("open %s with %#x", where, flags), err, unix.EACCES)
		}
	}
	for _, n := range []int64{0, blockSize, 8192} {
		_, err := sibling.Syscall(unix.SYS_TRUNCATE, path, n)
		wantErrno(t, fmt.Sprintf("truncate to %d", n), err, unix.EPERM)
	}
	for _, c := range []*client{sibling, owner} {
		wantErrno(t, "rm", c.Unlink(path), unix.EPERM)
	}
	_, err = owner.Open(path, unix.O_RDWR|unix.O_TRUNC)
	wantErrno(t, "O_TRUNC", err, unix.EPERM)
	for n, want := range map[int64]error{0: unix.EPERM, blockSize: nil, 8192: unix.EPERM} {
		wantErrno(t, fmt.Sprintf("the owner truncates to %d", n), owner.Truncate(fd, n), want)
	}
	_, err = stranger.Stat(path)
	wantErrno(t, "a stranger's stat", err, unix.ENOENT)
	for _, c := range []*client{owner, sibling, stranger} {
		c.Kill()
	}
	by.wantUndisturbed()
}

// TestBlockHead: whatever a process does to its own block's head, the device writes there what is true, never reads it back,
// and tells others as before.
func TestBlockHead(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	c := startClient(t, asUser(1000))
	fd, block := c.Block(d)
	c.Register(d, tokenOf(1), 4096)
	id := c.Word(block, 8)
	if fmt.Sprint(id) != c.Self(d) || c.Word(block, 0) != 0x504D5349 || c.Word(block, 4) != 1 {
		t.Errorf("the head has id %d, magic %#x, version %d", id, c.Word(block, 0), c.Word(block, 4))
	}
	junk := func() error { return c.Store(block, bytes.Repeat([]byte{0xff}, 64), 0) }
	hole := func() error { return c.Madvise(block, unix.MADV_REMOVE) }
	for i, harm := range []func() error{junk, hole, junk, hole} {
		wantErrno(t, "harm", harm(), nil)
		wantErrno(t, "active", d.Write("active", []string{"drain", "1"}[i%2]), nil)
		if c.Word(block, 8) != id || c.Word(block, offBlockState) != uint32(2-i%2) || c.Word64(block, offBlockEpoch) != 1 {
			t.Errorf("after harm %d the head has id %d, state %d, epoch %d", i, c.Word(block, 8), c.Word(block, offBlockState), c.Word64(block, offBlockEpoch))
		}
	}
	// at the same time: it goes on punching while the device goes on telling
	stop, punching := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				punching <- nil
				return
			default:
			}
			if err := c.Madvise(block, unix.MADV_REMOVE); err != nil {
				punching <- err
				return
			}
		}
	}()
	for i := range 100 {
		wantErrno(t, "active", d.Write("active", []string{"drain", "1"}[i%2]), nil)
		d.Read("stats")
	}
	close(stop)
	wantErrno(t, "punching", <-punching, nil)
	wantErrno(t, "close", c.Close(fd), nil) // the block lives as long as the process
	wantErrno(t, "active", d.Write("active", "drain"), nil)
	wantErrno(t, "active", d.Write("active", "1"), nil)
	c.Kill()
	by.wantHead(1, 1)
	by.wantUndisturbed()
}

// TestBlockSizes: the bounds of a procs block.
func TestBlockSizes(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t)
	fd := c.MustOpen(d.Path("procs", "self"), unix.O_RDWR|unix.O_CREAT)
	for _, tt := range []struct {
		size int64
		want error
	}{{0, unix.EINVAL}, {1, unix.EINVAL}, {4097, unix.EINVAL}, {4<<20 + 4096, unix.EFBIG}, {1<<63 - 1, unix.EFBIG}} {
		wantErrno(t, fmt.Sprintf("size %d", tt.size), c.Truncate(fd, tt.size), tt.want)
	}
	wantErrno(t, "pwrite in the reservation", c.Pwrite(fd, []byte("junk"), 4<<20-4), nil)
	wantErrno(t, "pwrite beyond", c.Pwrite(fd, []byte("junk"), 4<<20), unix.EPERM)
	wantErrno(t, "pwrite over the head to be", c.Pwrite(fd, []byte("junkjunkjunkjunk"), 0), nil)
	wantErrno(t, "size 4 MiB", c.Truncate(fd, 4<<20), nil)
	m := c.MustMap(fd, 4096)
	if c.Word(m, 0) != 0x504D5349 || c.Word(m, offBlockState) != 1 || c.Word64(m, offBlockEpoch) != 1 {
		t.Error("the head is not written")
	}
	c.Kill()
	d.WantNothing()
}

// TestReopenedReservation: a DMB without a size that is closed and at once opened again has one memory, the one that is bounded
// and charged, however the two requests meet in the daemon.
func TestReopenedReservation(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t)
	n, err := c.Reopen(d.Path("dmbs"), 3000)
	wantErrno(t, "open, close, open, truncate, write, remove", err, nil)
	if n != 0 {
		t.Errorf("%d DMBs have memory that the device knows nothing of", n)
	}
	c.Kill()
	d.WantNothing()
}
