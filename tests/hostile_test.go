// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// bystanders are an owner and a peer who go on as if nothing happened, whatever the others in a test do.
type bystanders struct {
	*pair
	d *device
}

const bystanderToken = "0000000b0000000b"

func startBystanders(t *testing.T, d *device) *bystanders {
	t.Helper()
	return &bystanders{startPair(t, d, bystanderToken, 16<<10), d}
}

// wantUndisturbed ends a test: the bystanders and the daemon are well, and everything else has been given back.
func (b *bystanders) wantUndisturbed() {
	b.d.t.Helper()
	b.wantAlive("undisturbed")
	b.wantLinks(2)
	b.d.WantCount(1)
	b.owner.Kill()
	b.peer.Kill()
	b.d.WantNothing()
}

// TestHostilePeer: a peer of another uid that cuts, punches and writes what it can reach.
func TestHostilePeer(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	owner, peer := startClient(t), startClient(t, asUser(1000))
	const size = 64 << 10
	ownFD, own := owner.Register(d, tokenOf(1), size)
	path := d.Path("dmbs", tokenOf(1))
	fd := peer.MustOpen(path, readWrite)
	mapped := peer.MustMap(fd, size)

	for _, n := range []int64{0, 1, 4096, size / 2, size + 4096, 1 << 40} {
		wantErrno(t, fmt.Sprintf("ftruncate to %d", n), peer.Truncate(fd, n), unix.EPERM)
		_, err := peer.Syscall(unix.SYS_TRUNCATE, path, n)
		wantErrno(t, fmt.Sprintf("truncate to %d", n), err, unix.EPERM)
	}
	_, err := peer.Open(path, unix.O_RDWR|unix.O_TRUNC)
	wantErrno(t, "O_TRUNC", err, unix.EPERM)
	for _, mode := range []int{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_COLLAPSE_RANGE,
		unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_UNSHARE_RANGE} {
		wantErrno(t, fmt.Sprintf("fallocate with %#x", mode), peer.Fallocate(fd, mode, 0, 8192), unix.EOPNOTSUPP)
	}
	wantErrno(t, "chmod", syscallErr(peer.Syscall(unix.SYS_FCHMOD, fd, 0)), unix.EPERM)
	wantErrno(t, "seals", syscallErr(peer.Syscall(unix.SYS_FCNTL, fd, unix.F_ADD_SEALS, unix.F_SEAL_WRITE)), unix.EINVAL)
	wantErrno(t, "rm", peer.Unlink(path), unix.EPERM)

	junk := make([]byte, size)
	rand.Read(junk)
	wantErrno(t, "any byte anywhere", peer.Store(mapped, junk, 0), nil)
	if have, err := owner.Pread(ownFD, size, 0); err != nil || !bytes.Equal(have, junk) {
		t.Errorf("the owner does not read what the peer wrote: %v", err)
	}
	wantErrno(t, "any byte by pwrite", peer.Pwrite(fd, bytes.Repeat([]byte{0xff}, size), 0), nil)

	// Holes: all of it, then the header while the device adds to its word. The owner finds zeros and no signal.
	wantErrno(t, "MADV_REMOVE", peer.Madvise(mapped, unix.MADV_REMOVE), nil)
	if have, err := owner.Load(own, size, 0); err != nil || !bytes.Equal(have, make([]byte, size)) {
		t.Errorf("the owner does not find zeros: %v", err)
	}
	for range 20 {
		wantErrno(t, "MADV_REMOVE of the header", peer.MadviseRange(mapped, 0, 4096, unix.MADV_REMOVE), nil)
		wantErrno(t, "active", d.Write("active", "drain"), nil)
		wantErrno(t, "active", d.Write("active", "1"), nil)
	}
	owned := owner.Sleeper(own, offSignal)
	wantErrno(t, "MADV_REMOVE of the header", peer.MadviseRange(mapped, 0, 4096, unix.MADV_REMOVE), nil)
	peer.Kill()
	wantWoken(t, owned) // the device still reaches the owner
	waitFor(t, "the peer's reference to go", func() error {
		if st, err := owner.Fstat(ownFD); err != nil || st.Nlink != 1 {
			return fmt.Errorf("st_nlink is %d, %v", st.Nlink, err)
		}
		return nil
	})
	owner.Kill()
	by.wantUndisturbed()
}

func syscallErr(_ int64, err error) error { return err }

// TestOnePeer: a leased DMB has one attachment in all its life, whoever asks, also after it is closed.
func TestOnePeer(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	const size = 16 << 10
	for i, tt := range []struct {
		name  string
		flags int // of the first attachment
		self  bool
	}{
		{"read and write", unix.O_RDWR, false},
		{"read only", unix.O_RDONLY, false},
		{"write only", unix.O_WRONLY, false},
		{"the owner itself", unix.O_RDWR, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			owner, root := startClient(t, asUser(1000)), startClient(t)
			peer, third := startClient(t, asUser(1001)), startClient(t, asUser(1001))
			path := d.Path("dmbs", tokenOf(i))
			ownFD, _ := owner.Register(d, tokenOf(i), size)
			if tt.self {
				peer = owner
			}
			fd := peer.MustOpen(path, tt.flags)
			mode := tt.flags & unix.O_ACCMODE
			for _, m := range []struct {
				prot int
				want error
			}{
				{unix.PROT_READ, map[int]error{unix.O_WRONLY: unix.EACCES}[mode]},
				{unix.PROT_WRITE, map[int]error{unix.O_WRONLY: unix.EACCES, unix.O_RDONLY: unix.EACCES}[mode]},
			} {
				_, err := peer.Mmap(fd, size, m.prot)
				wantErrno(t, fmt.Sprintf("mmap with %#x", m.prot), err, m.want)
			}
			if mode == unix.O_RDONLY {
				m, err := peer.Mmap(fd, size, unix.PROT_READ)
				wantErrno(t, "mmap", err, nil)
				_, err = peer.Syscall(unix.SYS_MPROTECT, mappingAt{m, 0}, size, unix.PROT_READ|unix.PROT_WRITE)
				wantErrno(t, "mprotect of a read-only mapping", err, unix.EACCES)
				wantErrno(t, "MADV_REMOVE of a read-only mapping", peer.Madvise(m, unix.MADV_REMOVE), unix.EACCES)
				wantErrno(t, "pwrite", peer.Pwrite(fd, []byte("x"), 0), unix.EBADF)
			}
			busy := func(when string) {
				t.Helper()
				for who, c := range map[string]*client{"the same process": peer, "its uid": third, "the owner": owner, "root": root} {
					for _, flags := range []int{unix.O_RDWR, unix.O_WRONLY} {
						_, err := c.Open(path, flags)
						wantErrno(t, fmt.Sprintf("%s attaches with %#x %s", who, flags, when), err, unix.EBUSY)
					}
				}
				_, err := third.Open(path, unix.O_RDONLY)
				wantErrno(t, "its uid attaches read-only "+when, err, unix.EBUSY)
			}
			busy("while it is attached")
			wantErrno(t, "close", peer.Close(fd), nil)
			waitFor(t, "the detachment", func() error {
				if st, err := owner.Fstat(ownFD); err != nil || st.Nlink != 1 {
					return fmt.Errorf("st_nlink %d, %v", st.Nlink, err)
				}
				return nil
			})
			busy("after it is closed")
			// To look is something else: the owner's uid and root may, and it is no attachment.
			for _, c := range []*client{owner, root} {
				look := c.MustOpen(path, unix.O_RDONLY)
				_, err := c.Mmap(look, size, unix.PROT_READ|unix.PROT_WRITE)
				wantErrno(t, "writing through a look", err, unix.EACCES)
				if st, err := c.Fstat(look); err != nil || st.Nlink != 1 {
					t.Errorf("a look makes st_nlink %d, %v", st.Nlink, err)
				}
			}
			for _, c := range []*client{owner, peer, third, root} {
				c.Kill()
			}
		})
	}
	by.wantUndisturbed()
}

// TestGuessedTokens: no token, no DMB, and nothing that tells a wrong guess from a bad one.
func TestGuessedTokens(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	guesser := startClient(t, asUser(1000))
	var b [8]byte
	for range 300 {
		rand.Read(b[:])
		token := fmt.Sprintf("%016x", binary.NativeEndian.Uint64(b[:]))
		_, err := guesser.Open(d.Path("dmbs", token), readWrite)
		wantErrno(t, "a guess", err, unix.ENOENT)
		_, err = guesser.Open(d.Path("bells", token), readWrite|unix.O_NONBLOCK)
		wantErrno(t, "a guess", err, unix.ENOENT)
	}
	for _, dir := range []string{"dmbs", "bells"} {
		if names, err := guesser.ReadDir(d.Path(dir)); err != nil || len(names) != 0 {
			t.Errorf("%s shows %v, %v", dir, names, err)
		}
	}
	guesser.Kill()
	by.wantUndisturbed()
}

// TestOwnerGone: after the owner's death nobody new attaches; who was attached keeps its memory.
func TestOwnerGone(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	owner, peer := startClient(t), startClient(t, asUser(1000))
	const size = 16 << 10
	owner.Register(d, tokenOf(1), size)
	owner.Register(d, tokenOf(2), size)
	fd := peer.MustOpen(d.Path("dmbs", tokenOf(1)), readWrite)
	mapped := peer.MustMap(fd, size)
	path, err := peer.Open(d.Path("dmbs", tokenOf(2)), unix.O_PATH)
	wantErrno(t, "O_PATH", err, nil)
	owner.Kill()
	d.WantCount(2) // the bystanders' and the one that is attached
	for name, open := range map[string]string{
		"attached before":   d.Path("dmbs", tokenOf(1)),
		"never attached":    d.Path("dmbs", tokenOf(2)),
		"found by O_PATH":   fmt.Sprintf("/proc/self/fd/%d", path),
		"the handle's own":  fmt.Sprintf("/proc/self/fd/%d", fd),
		"the doorbell of 1": d.Path("bells", tokenOf(1)),
	} {
		_, err := peer.Open(open, readWrite)
		if name == "the handle's own" && err == unix.EBUSY {
			err = unix.ENOENT // either will do
		}
		wantErrno(t, name, err, unix.ENOENT)
	}
	wantErrno(t, "its mapping", peer.Store(mapped, []byte("still here"), 32), nil)
	if b, err := peer.Pread(fd, 10, 32); err != nil || string(b) != "still here" {
		t.Errorf("its handle reads %q, %v", b, err)
	}
	if st, err := peer.Fstat(fd); err != nil || st.Nlink != 1 {
		t.Errorf("st_nlink %d, %v", st.Nlink, err)
	}
	peer.Kill()
	by.wantUndisturbed()
}

// TestKeptMapping: a mapping kept after close, and after the DMB is gone, reads zeros, shows nothing of the next one's and
// holds nothing against the limits.
func TestKeptMapping(t *testing.T) {
	const size = 64 << 10
	d := mountDevice(t, "--max-bytes=256K", "--max-bytes-per-uid=256K", "--max-dmb-size=64K")
	by := startBystanders(t, d)
	owner, peer := startClient(t), startClient(t, asUser(1000))
	secret := bytes.Repeat([]byte("secret! "), size/8)
	var kept []int
	for n := range 8 { // more than the limits hold at once
		ownFD, own := owner.Register(d, tokenOf(n), size)
		fd := peer.MustOpen(d.Path("dmbs", tokenOf(n)), readWrite)
		kept = append(kept, peer.MustMap(fd, size))
		wantErrno(t, "store", owner.Store(own, secret, 0), nil)
		wantErrno(t, "close", peer.Close(fd), nil)
		if b, err := peer.Load(kept[n], 8, 0); err != nil || string(b) != "secret! " {
			t.Errorf("before the DMB is freed the mapping reads %q, %v", b, err)
		}
		wantErrno(t, "munmap", owner.Munmap(own), nil)
		wantErrno(t, "close", owner.Close(ownFD), nil)
		d.WantCount(1)
		for i, m := range kept {
			b, err := peer.Load(m, size, 0)
			want := make([]byte, size)
			if i < n { // what the peer itself has put there since
				want = bytes.Repeat([]byte{0xee}, size)
			}
			if err != nil || !bytes.Equal(b, want) {
				t.Fatalf("mapping %d of %d shows %q…, %v", i, n, b[:8], err)
			}
		}
		wantErrno(t, "store", peer.Store(kept[n], bytes.Repeat([]byte{0xee}, size), 0), nil)
	}
	fd, own := owner.Register(d, tokenOf(100), size)
	if b, err := owner.Load(own, size, 0); err != nil || !bytes.Equal(b, make([]byte, size)) {
		t.Errorf("a new DMB is not zeroed: %q…, %v", b[:8], err)
	}
	wantErrno(t, "close", owner.Close(fd), nil)
	owner.Kill()
	peer.Kill()
	by.wantUndisturbed()
}

// TestInheritedHandles: a child that has inherited a handle keeps the memory after its parent's death, but not the name, and
// everything ends with the child.
func TestInheritedHandles(t *testing.T) {
	d := mountDevice(t)
	by := startBystanders(t, d)
	owner, peer := startClient(t), startClient(t)
	const size = 16 << 10
	fd, _ := owner.Register(d, tokenOf(1), size)
	shell := owner.MustOpen(d.Path("dmbs", tokenOf(2)), unix.O_RDWR|unix.O_CREAT)
	wantErrno(t, "size", owner.Truncate(shell, size), nil)
	block, _ := owner.Block(d)
	id := owner.Self(d)
	peerFD := peer.MustOpen(d.Path("dmbs", tokenOf(1)), readWrite)
	mapped := peer.MustMap(peerFD, size)
	holders := []int{owner.Holder(fd), owner.Holder(shell), owner.Holder(block), peer.Holder(peerFD)}
	owner.Kill()
	waitFor(t, "the owner's name to go", func() error {
		if _, err := peer.Stat(d.Path("dmbs", tokenOf(1))); err != unix.ENOENT {
			return fmt.Errorf("stat: %v", err)
		}
		return nil
	})
	_, err := peer.Stat(d.Path("procs", id))
	wantErrno(t, "the procs block of a dead process", err, unix.ENOENT)
	_, err = peer.Stat(d.Path("dmbs", tokenOf(2)))
	wantErrno(t, "its DMB from a shell", err, nil)
	wantErrno(t, "the peer's mapping", peer.Store(mapped, []byte("x"), 32), nil)
	d.WantCount(3)
	peer.Kill()
	d.WantCount(3) // their children hold on
	for _, pid := range holders {
		killPID(t, pid)
	}
	d.WantCount(2)
	wantErrno(t, "rm", unix.Unlink(d.Path("dmbs", tokenOf(2))), nil)
	by.wantUndisturbed()
}
