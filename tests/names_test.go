// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMalformedNames: nothing but 16 lower-case hex digits, not all 0, can be made or found in dmbs/.
func TestMalformedNames(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t)
	const good = "0123456789abcdef"
	for _, name := range []string{
		good[:15], good + "0", good + good, "0", "a", "0000000000000000", strings.ToUpper(good), "0123456789abcdeF", "0123456789abcdeg",
		".123456789abcdef", "0123456789abcde.", "....", "................", "0x23456789abcdef", "+123456789abcdef", "-123456789abcdef",
		"0123456789abcde ", " 123456789abcdef", "0123456789abcde\n", "\n123456789abcdef", good + "\n", "0123456\n89abcdef", "01234567_9abcdef",
		"0123456789abcd\x80\x80", "0123456789abcd\xc3\xa9", "００００", "\x01", "self", strings.Repeat("a", 17), strings.Repeat("0", 300),
		strings.Repeat("a", 1000),
	} {
		path := d.Path("dmbs") + "/" + name
		for _, flags := range []int{register, unix.O_RDWR | unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, unix.O_RDONLY | unix.O_CREAT} {
			_, err := c.Open(path, flags)
			wantErrno(t, fmt.Sprintf("creating %.20q with %#x", name, flags), err, unix.EINVAL)
		}
		_, err := c.Open(path, readWrite)
		wantErrno(t, fmt.Sprintf("opening %.20q", name), err, unix.ENOENT)
		_, err = c.Stat(path)
		wantErrno(t, fmt.Sprintf("stat of %.20q", name), err, unix.ENOENT)
		wantErrno(t, fmt.Sprintf("unlinking %.20q", name), c.Unlink(path), unix.ENOENT)
		_, err = c.Open(d.Path("bells")+"/"+name, readWrite|unix.O_NONBLOCK)
		wantErrno(t, fmt.Sprintf("opening bell %.20q", name), err, unix.ENOENT)
	}
	for _, name := range []string{".", ".."} {
		_, err := c.Open(d.Path("dmbs")+"/"+name, unix.O_RDWR|unix.O_CREAT)
		wantErrno(t, "creating "+name, err, unix.EISDIR)
	}
	_, err := c.Open(d.Path("dmbs")+"/"+strings.Repeat("a", 5000), unix.O_RDWR|unix.O_CREAT)
	wantErrno(t, "a path too long", err, unix.ENAMETOOLONG)
	for _, name := range []string{"0", "01", "-1", "1.0", "0x1", "1073741824", "99999999999999999999", "self2", "1"} {
		_, err := c.Open(d.Path("procs", name), unix.O_RDWR)
		wantErrno(t, fmt.Sprintf("opening procs/%s", name), err, unix.ENOENT)
		want := unix.EINVAL
		if name == "1" { // well-formed, but not this process's
			want = unix.EPERM
		}
		_, err = c.Open(d.Path("procs", name), unix.O_RDWR|unix.O_CREAT)
		wantErrno(t, fmt.Sprintf("creating procs/%s", name), err, want)
	}
	if names, err := c.ReadDir(d.Path("dmbs")); err != nil || len(names) != 0 || d.Read("dmbs_cnt") != "0" {
		t.Errorf("dmbs has %q, %v; dmbs_cnt %s", names, err, d.Read("dmbs_cnt"))
	}
}

// TestSizes: a DMB takes its size once, in pages, up to the mount's limit.
func TestSizes(t *testing.T) {
	d := mountDevice(t, "--max-dmb-size=1M")
	c := startClient(t)
	for i, tt := range []struct {
		size int64
		want error
	}{
		{0, unix.EINVAL},
		{1, unix.EINVAL},
		{4095, unix.EINVAL},
		{4097, unix.EINVAL},
		{1<<20 - 1, unix.EINVAL},
		{4096, nil},
		{12288, nil}, // not a power of two
		{1 << 20, nil},
		{1<<20 + 1, unix.EFBIG},
		{1<<20 + 4096, unix.EFBIG},
		{1 << 31, unix.EFBIG},
		{1 << 40, unix.EFBIG},
		{math.MaxInt64 &^ 4095, unix.EFBIG},
		{math.MaxInt64, unix.EFBIG},
		{-1, unix.EINVAL},
		{-4096, unix.EINVAL},
		{math.MinInt64, unix.EINVAL},
	} {
		what := fmt.Sprintf("size %d", tt.size)
		path := d.Path("dmbs", tokenOf(i))
		fd := c.MustOpen(path, register)
		wantErrno(t, what, c.Truncate(fd, tt.size), tt.want)
		st, err := c.Fstat(fd)
		wantErrno(t, "fstat", err, nil)
		if tt.want != nil {
			if st.Size != 0 {
				t.Errorf("%s: st_size is %d", what, st.Size)
			}
			wantErrno(t, "a good size after "+what, c.Truncate(fd, 8192), nil) // a refusal is not the end
			tt.size = 8192
		} else if st.Size != tt.size {
			t.Errorf("%s: st_size is %d", what, st.Size)
		}
		for _, again := range []struct {
			size int64
			want error
		}{{tt.size, nil}, {tt.size + 4096, unix.EPERM}, {tt.size - 4096, unix.EPERM}, {0, unix.EPERM}, {1, unix.EPERM}, {math.MaxInt64, unix.EPERM}} {
			wantErrno(t, fmt.Sprintf("%s, then %d", what, again.size), c.Truncate(fd, again.size), again.want)
			_, err := c.Syscall(unix.SYS_TRUNCATE, path, again.size)
			wantErrno(t, fmt.Sprintf("%s, then %d by path", what, again.size), err, again.want)
		}
		_, err = c.Open(path, unix.O_RDWR|unix.O_TRUNC)
		wantErrno(t, what+", then O_TRUNC", err, unix.EPERM)
		_, err = c.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
		wantErrno(t, what+", then O_CREAT|O_TRUNC", err, unix.EPERM)
		if st, err := c.Stat(path); err != nil || st.Size != tt.size {
			t.Errorf("%s has become %d, %v", what, st.Size, err)
		}
		wantErrno(t, "close", c.Close(fd), nil)
	}
	c.Kill()
	d.WantNothing()
}

// TestBeforeTheSize: before its size is set a DMB is bounded by its reservation; what lies beyond its size is then gone, and
// nothing makes it grow.
func TestBeforeTheSize(t *testing.T) {
	const most = 64 << 10
	d := mountDevice(t, "--max-dmb-size=64K")
	for _, kind := range []struct {
		name  string
		flags int
	}{{"leased", register}, {"from a shell", unix.O_RDWR | unix.O_CREAT}} {
		t.Run(kind.name, func(t *testing.T) {
			c, peer := startClient(t), startClient(t, asUser(1000))
			path := d.Path("dmbs", tokenOf(kind.flags))
			fd := c.MustOpen(path, kind.flags)
			if s := d.Stats().Device; s.Bytes != most {
				t.Errorf("the reservation is %d bytes", s.Bytes)
			}
			_, err := peer.Open(path, readWrite)
			wantErrno(t, "attaching before the size", err, unix.EAGAIN)
			for _, off := range []int64{0, 8192, most - 8} {
				wantErrno(t, fmt.Sprintf("pwrite at %d", off), c.Pwrite(fd, []byte("too soon"), off), nil)
			}
			for _, off := range []int64{most, most + 4096, 1 << 40} {
				wantErrno(t, fmt.Sprintf("pwrite at %d", off), c.Pwrite(fd, []byte("too far!"), off), unix.EPERM)
			}
			for _, mode := range []int{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
				wantErrno(t, fmt.Sprintf("fallocate mode %#x", mode), c.Fallocate(fd, mode, 0, 1<<20), unix.EOPNOTSUPP)
			}
			wantErrno(t, "size", c.Truncate(fd, 4096), nil)
			if s := d.Stats().Device; s.Bytes != 4096 {
				t.Errorf("%d bytes are charged for a DMB of 4096", s.Bytes)
			}
			if b, err := c.Pread(fd, 16, 0); err != nil || string(b) != "too soon\x00\x00\x00\x00\x00\x00\x00\x00" {
				t.Errorf("the start reads %q, %v", b, err)
			}
			if b, err := c.Pread(fd, 8, 8192); err != nil || len(b) != 0 {
				t.Errorf("beyond the size there is %q, %v", b, err)
			}
			if st, err := c.Fstat(fd); err != nil || st.Size != 4096 || st.Blocks != 8 {
				t.Errorf("size %d, blocks %d, %v", st.Size, st.Blocks, err)
			}
			for _, off := range []int64{4096, 8192, 1 << 40} {
				wantErrno(t, fmt.Sprintf("pwrite at %d", off), c.Pwrite(fd, []byte("too far!"), off), unix.EPERM)
			}
			wantErrno(t, "fallocate", c.Fallocate(fd, 0, 0, 8192), unix.EOPNOTSUPP)
			c.Kill()
		})
	}
	wantErrno(t, "rm", unix.Unlink(d.Path("dmbs", tokenOf(unix.O_RDWR|unix.O_CREAT))), nil)
	d.WantNothing()
}

// TestTokenReuse: a token serves once.
func TestTokenReuse(t *testing.T) {
	d := mountDevice(t)
	c, other := startClient(t), startClient(t)
	taken := func(when string, n int) {
		t.Helper()
		for _, flags := range []int{register, unix.O_RDWR | unix.O_CREAT} {
			_, err := other.Open(d.Path("dmbs", tokenOf(n)), flags)
			wantErrno(t, fmt.Sprintf("creating again with %#x %s", flags, when), err, unix.EEXIST)
		}
	}
	c.Register(d, tokenOf(0), 4096)
	_, err := other.Open(d.Path("dmbs", tokenOf(0)), register)
	wantErrno(t, "a live token", err, unix.EEXIST)
	wantErrno(t, "rm", c.Unlink(d.Path("dmbs", tokenOf(0))), nil)
	taken("after rm", 0)

	fd, _ := c.Register(d, tokenOf(1), 4096)
	wantErrno(t, "close", c.Close(fd), nil)
	waitFor(t, "the close to arrive", func() error {
		_, err := c.Stat(d.Path("dmbs", tokenOf(1)))
		if err == nil {
			err = fmt.Errorf("it is there")
		} else if err == unix.ENOENT {
			err = nil
		}
		return err
	})
	taken("after close", 1)

	wantErrno(t, "close", c.Close(c.MustOpen(d.Path("dmbs", tokenOf(2)), unix.O_RDWR|unix.O_CREAT)), nil)
	wantErrno(t, "rm", c.Unlink(d.Path("dmbs", tokenOf(2))), nil)
	taken("after rm of one from a shell", 2)

	c.Register(d, tokenOf(3), 4096)
	c.Kill()
	d.WantCount(0)
	taken("after the owner's death", 3)
}
