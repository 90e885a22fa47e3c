// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestShell does with coreutils what docs/ says can be done with them: each command is a process of its own.
func TestShell(t *testing.T) {
	for _, mode := range []string{"0", "1"} { // by its owner's uid alone, so dmb_copy makes no difference
		t.Run("dmb_copy="+mode, func(t *testing.T) {
			d := mountDevice(t, "--dmb-copy="+mode)
			d.shell(`
				say() { echo "$*" >&2; exit 1; }
				t=00c0ffee00c0ffee
				: > dmbs/$t
				test "$(ls dmbs bells)" = "$(printf 'bells:\n%s\n\ndmbs:\n%s' $t $t)" || say "$(ls dmbs bells)"
				test "$(cat dmbs_cnt)" = 1
				truncate -s 65536 dmbs/$t
				test "$(stat -c '%s %h %F %u' dmbs/$t)" = "65536 1 regular empty file 0" ||
					test "$(stat -c '%s %h %F %u' dmbs/$t)" = "65536 1 regular file 0" || say "$(stat dmbs/$t)"
				test "$(stat -c %F bells/$t)" = fifo

				# filled from byte 32 on, read by separate commands
				printf 'through the ring' | dd of=dmbs/$t bs=1 seek=32 conv=notrunc status=none
				test "$(dd if=dmbs/$t bs=1 skip=32 count=16 status=none)" = 'through the ring'
				test "$(tail -c +33 dmbs/$t | head -c 16)" = 'through the ring'
				printf HEAD 1<> dmbs/$t
				test "$(head -c 4 dmbs/$t)" = HEAD
				test "$(cat dmbs/$t | wc -c)" = 65536
				test "$(du -k dmbs/$t | cut -f1)" -ge 4
				cp dmbs/$t /dev/null

				# what would cut it or make it grow
				! (echo x > dmbs/$t) 2>/dev/null || say 'O_TRUNC is taken'
				! dd if=/dev/zero of=dmbs/$t bs=1 count=1 status=none 2>/dev/null || say 'dd without notrunc is taken'
				! truncate -s 4096 dmbs/$t 2>/dev/null || say 'it is cut'
				! truncate -s +4096 dmbs/$t 2>/dev/null || say 'it has grown'
				! (echo x >> dmbs/$t) 2>/dev/null || say 'O_APPEND writes beyond the end'
				! dd if=/dev/zero of=dmbs/$t bs=65536 seek=1 count=1 conv=notrunc status=none 2>/dev/null || say 'written beyond the end'
				test "$(stat -c %s dmbs/$t)" = 65536
				test "$(tail -c +33 dmbs/$t | head -c 16)" = 'through the ring'

				rm dmbs/$t
				test -z "$(ls dmbs bells | grep $t)"
			`)
			d.WantCount(0) // the kernel tells of the last close a little later
			d.shell(`
				say() { echo "$*" >&2; exit 1; }
				t=00c0ffee00c0ffee
				! (: > dmbs/$t) 2>/dev/null || say 'the token came back'
				touch dmbs/00c0ffee00c0ffe1   # no size: nothing but a name
				test "$(cat dmbs_cnt)" = 1
				rm dmbs/00c0ffee00c0ffe1
			`)
			d.WantNothing()
		})
	}
}

// TestShellBell rings a bell with echo and hears it with cat, as another uid too.
func TestShellBell(t *testing.T) {
	d := mountDevice(t)
	const token = "00c0ffee00c0ffee"
	d.shell("truncate -s 4096 dmbs/" + token)
	for _, uid := range []uint32{0, 1000} {
		cat := exec.Command("cat", d.Path("bells", token))
		cat.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		heard := new(logBuffer)
		cat.Stdout = heard
		if err := cat.Start(); err != nil {
			t.Fatal(err)
		}
		// echo opens the FIFO for writing, which waits for cat to have opened it
		echo := exec.Command("sh", "-c", "echo ding > "+d.Path("bells", token))
		echo.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, err := echo.CombinedOutput(); err != nil {
			t.Errorf("uid %d rings: %v, %s", uid, err, out)
			cat.Process.Kill()
		}
		if err := cat.Wait(); err != nil || heard.String() != "ding\n" {
			t.Errorf("cat hears %q of uid %d and ends with %v", heard, uid, err)
		}
	}
	// rm while the bell is open: those who have it go on, nobody else comes.
	c, other := startClient(t), startClient(t)
	a := c.MustOpen(d.Path("bells", token), unix.O_RDWR|unix.O_NONBLOCK)
	b := other.MustOpen(d.Path("bells", token), unix.O_RDWR|unix.O_NONBLOCK)
	d.shell("rm dmbs/" + token)
	_, err := c.Open(d.Path("bells", token), unix.O_RDWR|unix.O_NONBLOCK)
	wantErrno(t, "the bell of a DMB that is gone", err, unix.ENOENT)
	wantErrno(t, "poll", other.Poll(b, 0), unix.ETIMEDOUT)
	_, err = c.Syscall(unix.SYS_WRITE, a, "\x01", 1)
	wantErrno(t, "ring", err, nil)
	wantErrno(t, "poll", other.Poll(b, patience), nil)
}

// treeText describes a tree: each name with its type, mode, owner, size and, of a symlink, its target.
func treeText(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		target := ""
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, err = os.Readlink(path)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d links %d ino %d %s %v\n", path, st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Ino, target, st.Mtim)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSealedTree: nothing but DMBs can be made or removed and nothing renamed or changed anywhere, by root or anybody else.
func TestSealedTree(t *testing.T) {
	d := mountDevice(t)
	owner, root, user := startClient(t), startClient(t), startClient(t, asUser(1000))
	const dmb, shell = "00000000000000aa", "00000000000000bb"
	owner.Register(d, dmb, 4096)
	owner.Block(d)
	fd := owner.MustOpen(d.Path("dmbs", shell), unix.O_RDWR|unix.O_CREAT)
	wantErrno(t, "size", owner.Truncate(fd, 4096), nil)
	block := d.Path("procs", owner.Self(d))
	root.Self(d)
	user.Self(d) // so that the device knows all of them already
	before, members := treeText(t, d.Point), len(d.Stats().Device.Processes)

	dirs := []string{d.Point, filepath.Join(d.Point, "devices"), d.Dir, d.Path("dmbs"), d.Path("bells"), d.Path("procs")}
	files := []string{d.Path("gid"), d.Path("active"), d.Path("dmbs", dmb), d.Path("dmbs", shell), d.Path("bells", dmb), block, d.Path("procs/self")}
	const at, noFollow = unix.AT_FDCWD, unix.AT_SYMLINK_NOFOLLOW
	do := func(c *client, want error, allow []error, what string, number uintptr, args ...any) {
		t.Helper()
		_, err := c.Syscall(number, args...)
		for _, a := range allow {
			if err == a {
				return
			}
		}
		wantErrno(t, what, err, want)
	}
	for _, c := range []*client{root, user} {
		for _, dir := range dirs {
			for _, name := range []string{"new", "00000000000000cc", "1"} {
				path := dir + "/" + name
				eperm := func(what string, number uintptr, args ...any) {
					t.Helper()
					do(c, unix.EPERM, nil, what+" "+path, number, args...)
				}
				eperm("mkdir", unix.SYS_MKDIRAT, at, path, 0o755)
				eperm("symlink", unix.SYS_SYMLINKAT, "/etc/passwd", at, path)
				eperm("mkfifo", unix.SYS_MKNODAT, at, path, unix.S_IFIFO|0o666, 0)
				eperm("mknod of a file", unix.SYS_MKNODAT, at, path, unix.S_IFREG|0o666, 0)
				eperm("mknod of a socket", unix.SYS_MKNODAT, at, path, unix.S_IFSOCK|0o666, 0)
				eperm("mknod of a device", unix.SYS_MKNODAT, at, path, unix.S_IFCHR|0o666, 0x0103)
				for _, file := range files {
					// of another's procs block the user must not even learn that it is there
					hidden := []error{unix.ENOENT}
					if c == root || file != block {
						hidden = nil
					}
					do(c, unix.EPERM, hidden, "ln "+file+" "+path, unix.SYS_LINKAT, at, file, at, path, 0)
					do(c, unix.EPERM, hidden, "mv "+file+" "+path, unix.SYS_RENAMEAT2, at, file, at, path, 0)
				}
				if dir != d.Path("dmbs") && dir != d.Path("procs") {
					_, err := c.Open(path, register)
					wantErrno(t, "creating "+path, err, unix.EPERM)
				}
				do(c, unix.EOPNOTSUPP, nil, "O_TMPFILE in "+dir, unix.SYS_OPENAT, at, dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
			}
			if dir != d.Point {
				do(c, unix.EPERM, []error{unix.ENOTEMPTY}, "rmdir "+dir, unix.SYS_UNLINKAT, at, dir, unix.AT_REMOVEDIR)
				do(c, unix.EPERM, nil, "mv "+dir, unix.SYS_RENAMEAT2, at, dir, at, d.Point+"/elsewhere", 0)
			}
			do(c, unix.EPERM, nil, "chmod "+dir, unix.SYS_FCHMODAT, at, dir, 0o777)
			do(c, unix.EPERM, nil, "chown "+dir, unix.SYS_FCHOWNAT, at, dir, 1000, 1000, 0)
			do(c, unix.EPERM, nil, "touch "+dir, unix.SYS_UTIMENSAT, at, dir, 0, 0)
			do(c, unix.EOPNOTSUPP, nil, "setxattr "+dir, unix.SYS_SETXATTR, dir, "user.x", "y", 1, 0)
		}
		for _, file := range files {
			// of another's procs block the user must not even learn that it is there
			hidden := []error{unix.ENOENT}
			if c == root || file != block {
				hidden = nil
			}
			if file == d.Path("procs/self") { // chmod follows it, to no block
				hidden = []error{unix.ENOENT}
			}
			do(c, unix.EPERM, hidden, "chmod "+file, unix.SYS_FCHMODAT, at, file, 0o777)
			do(c, unix.EPERM, hidden, "chown "+file, unix.SYS_FCHOWNAT, at, file, 1000, 1000, noFollow)
			do(c, unix.EPERM, hidden, "chgrp "+file, unix.SYS_FCHOWNAT, at, file, -1, 1000, noFollow)
			do(c, unix.EPERM, hidden, "exchange "+file, unix.SYS_RENAMEAT2, at, file, at, d.Path("chid"), unix.RENAME_EXCHANGE)
			do(c, unix.EPERM, hidden, "mv over "+file, unix.SYS_RENAMEAT2, at, d.Path("chid"), at, file, 0)
			if file != d.Path("dmbs", dmb) && file != d.Path("dmbs", shell) || c == user {
				do(c, unix.EPERM, hidden, "rm "+file, unix.SYS_UNLINKAT, at, file, 0)
			}
		}
		_, err := c.Open(d.Path("procs", "1"), register)
		wantErrno(t, "a procs block of nobody's", err, unix.EPERM)
		do(c, unix.EXDEV, nil, "mv out of the tree", unix.SYS_RENAMEAT2, at, d.Path("dmbs", dmb), at, "/tmp/00000000000000aa", 0)
	}
	if after := treeText(t, d.Point); after != before {
		t.Errorf("the tree was\n%s\nand is\n%s", before, after)
	}
	if n := len(d.Stats().Device.Processes); n != members {
		t.Errorf("the device knows %d processes, it knew %d", n, members)
	}
	owner.Kill()
	wantErrno(t, "rm", unix.Unlink(d.Path("dmbs", shell)), nil)
	d.WantCount(0)
}
