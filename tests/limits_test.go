// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTableFull: max_dmbs and max_dmbs_per_uid are exact, whoever registers, and a place that is freed can be had again.
func TestTableFull(t *testing.T) {
	d := mountDevice(t, "--max-dmbs=4", "--max-dmbs-per-uid=3")
	a, b, root := startClient(t, asUser(1000)), startClient(t, asUser(1001)), startClient(t)
	next := 0
	try := func(c *client, flags int, want error) int {
		t.Helper()
		next++
		fd, err := c.Open(d.Path("dmbs", tokenOf(next)), flags)
		wantErrno(t, fmt.Sprintf("DMB %d", next), err, want)
		return fd
	}
	shell := unix.O_RDWR | unix.O_CREAT
	try(a, register, nil)
	freed := try(a, register, nil)
	try(a, shell, nil)
	try(a, register, unix.ENOSPC) // a's share
	try(a, shell, unix.ENOSPC)
	again := startClient(t, asUser(1000))
	try(again, register, unix.ENOSPC)
	again.Kill()
	try(b, register, nil)
	try(b, register, unix.ENOSPC) // the table
	try(root, register, unix.ENOSPC)
	if d.Read("dmbs_cnt") != "4" {
		t.Errorf("dmbs_cnt is %s", d.Read("dmbs_cnt"))
	}
	wantErrno(t, "close", a.Close(freed), nil)
	d.WantCount(3)
	last := try(root, shell, nil)
	made := tokenOf(next)
	try(b, register, unix.ENOSPC)
	wantErrno(t, "rm", root.Unlink(d.Path("dmbs", made)), nil)
	try(b, register, unix.ENOSPC) // it is open
	wantErrno(t, "close", root.Close(last), nil)
	d.WantCount(3)
	try(b, register, nil)
	a.Kill()
	d.WantCount(3) // the one from a shell stays
	wantErrno(t, "rm", root.Unlink(d.Path("dmbs", tokenOf(3))), nil)
	b.Kill()
	root.Kill()
	d.WantNothing()
}

// TestMemoryLimits: the sizes of DMBs and procs blocks add up to max_bytes and max_bytes_per_uid exactly, and what is freed can
// be had again.
func TestMemoryLimits(t *testing.T) {
	const all, share, most = 192 << 10, 128 << 10, 64 << 10
	d := mountDevice(t, "--max-bytes=192K", "--max-bytes-per-uid=128K", "--max-dmb-size=64K")
	a, b, root := startClient(t, asUser(1000)), startClient(t, asUser(1001)), startClient(t)
	next := 0
	try := func(c *client, size int64, create, truncate error) int {
		t.Helper()
		next++
		fd, err := c.Open(d.Path("dmbs", tokenOf(next)), register)
		wantErrno(t, fmt.Sprintf("DMB %d", next), err, create)
		if err == nil {
			err := c.Truncate(fd, size)
			wantErrno(t, fmt.Sprintf("size %d of DMB %d", size, next), err, truncate)
		}
		return fd
	}
	close := func(c *client, fd int, left int64) {
		t.Helper()
		wantErrno(t, "close", c.Close(fd), nil)
		waitFor(t, fmt.Sprintf("%d bytes", left), func() error {
			if have := d.Stats().Device.Bytes; have != left {
				return fmt.Errorf("there are %d", have)
			}
			return nil
		})
	}
	try(a, most, nil, nil)
	blockFD, _ := a.Block(d) // counts as well
	big := try(a, most-8192, nil, nil)
	small := try(a, 8192, nil, unix.ENOMEM) // a page is left: enough to begin with
	close(a, small, share-4096)
	small = try(a, 4096, nil, nil)
	try(a, 4096, unix.ENOMEM, nil)
	if have := d.Stats().Device.Bytes; have != share {
		t.Errorf("%d bytes of the share of %d", have, share)
	}
	try(b, most, nil, nil)
	try(b, 4096, unix.ENOMEM, nil) // all of max_bytes
	try(root, 4096, unix.ENOMEM, nil)
	_, err := b.Open(d.Path("procs", "self"), unix.O_RDWR|unix.O_CREAT)
	wantErrno(t, "a procs block without memory", err, unix.ENOMEM)
	if have := d.Stats().Device.Bytes; have != all {
		t.Errorf("%d bytes of %d", have, all)
	}
	if d.Read("dmbs_cnt") != "4" {
		t.Errorf("dmbs_cnt is %s: a refused DMB has kept its place", d.Read("dmbs_cnt"))
	}
	close(a, small, all-4096)
	close(a, big, all-4096-most+8192)
	try(root, most-4096, nil, nil)
	try(root, 4096, unix.ENOMEM, nil)
	a.Close(blockFD)
	a.Kill()
	b.Kill()
	root.Kill()
	d.WantNothing()
	try(startClient(t, asUser(1001)), most, nil, nil)
}

// TestOddLimit: a limit that is not a number of pages gives the pages that are in it.
func TestOddLimit(t *testing.T) {
	d := mountDevice(t, "--max-bytes=10000", "--max-bytes-per-uid=10000")
	c := startClient(t)
	c.Register(d, tokenOf(1), 4096)
	c.Register(d, tokenOf(2), 4096)
	_, err := c.Open(d.Path("dmbs", tokenOf(3)), register)
	wantErrno(t, "a third page of 10000 bytes", err, unix.ENOMEM)
	c.Kill()
	d.WantNothing()
}

// TestReservations: who has opened a DMB and not said how large it gets keeps at most half of the room from the next ones.
func TestReservations(t *testing.T) {
	d := mountDevice(t, "--max-bytes=128K", "--max-bytes-per-uid=128K", "--max-dmb-size=64K")
	c := startClient(t)
	var fds []int
	for n, want := range []int64{64 << 10, 96 << 10, 112 << 10, 120 << 10, 124 << 10} {
		fds = append(fds, c.MustOpen(d.Path("dmbs", tokenOf(n)), register))
		if have := d.Stats().Device.Bytes; have != want {
			t.Errorf("%d bytes are reserved for %d DMBs, not %d", have, n+1, want)
		}
	}
	wantErrno(t, "more than was left", c.Truncate(fds[1], 64<<10), unix.ENOMEM)
	for _, fd := range fds {
		wantErrno(t, "a page", c.Truncate(fd, 4096), nil)
	}
	if have := d.Stats().Device.Bytes; have != int64(4096*len(fds)) {
		t.Errorf("%d bytes for %d pages", have, len(fds))
	}
}
