// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const churners = 64

// TestChurn has 64 processes register, attach, exchange and die at random, and looks for what is left of them afterwards:
// DMBs, bytes, processes, descriptors, goroutines, kernel files, inodes, heap. ISMFS_SOAK says for how long (make soak).
func TestChurn(t *testing.T) {
	length := 10 * time.Second
	if s := os.Getenv("ISMFS_SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	// With a small heap the collector runs often, so that the live heap which stats shows is a recent one.
	t.Setenv("GOGC", "10")
	d := mountDevice(t)
	churn(t, d, length/4) // so that tables and buffers have grown to what they need once
	before := d.footprint(t)
	made := 0
	for round := 0; made < 10*churners; round++ { // fewer are too few to see a leak
		if round == 20 {
			t.Fatalf("%d DMBs were registered, and no more come", made)
		}
		churn(t, d, length-length/4)
		made = d.sequence(t) - before.sequence
	}
	t.Logf("%d DMBs were registered", made)
	// A leak of one thing for each DMB would show in each of these. What is not counted by one is allowed a part of that.
	waitFor(t, "everything to be given back", func() error {
		now := d.footprint(t)
		var errs []error
		for _, c := range []struct {
			what          string
			before, after int
			allowed       int
		}{
			{"descriptors of the daemon", before.descriptors, now.descriptors, 0},
			{"goroutines of the daemon", before.goroutines, now.goroutines, 32},      // go-fuse's readers come and go
			{"open files of the kernel", before.files, now.files, made / 2},          // other programs run beside
			{"heap of the daemon in bytes", before.heap, now.heap, 1<<19 + 128*made}, // an inode not forgotten is 600
		} {
			if c.after > c.before+c.allowed {
				errs = append(errs, fmt.Errorf("%s: %d before, %d after %d DMBs", c.what, c.before, c.after, made))
			}
		}
		return errors.Join(errs...)
	})
	t.Logf("before %+v, after %+v", before, d.footprint(t))
}

// churn lets all churn for a while, until nothing is left.
func churn(t *testing.T, d *device, length time.Duration) {
	t.Helper()
	var all sync.WaitGroup
	end := time.Now().Add(length)
	for range churners {
		all.Go(func() {
			for !t.Failed() && time.Now().Before(end) {
				// Some live long, some die in the middle of their first call.
				startClient(t).churnFor(t, d, min(time.Duration(rand.ExpFloat64()*float64(2*time.Second)), time.Until(end)))
			}
		})
	}
	all.Wait()
	d.WantCount(0)
	d.WantNothing()
}

// footprint is what a daemon takes.
type footprint struct{ descriptors, goroutines, files, heap, sequence int }

func (d *device) footprint(t *testing.T) footprint {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var files int
	text, err := os.ReadFile("/proc/sys/fs/file-nr")
	if err == nil {
		_, err = fmt.Sscan(string(text), &files)
	}
	if err != nil {
		t.Fatal(err)
	}
	var s daemonStats
	for range 100 { // each read makes some garbage, and so a collection sooner or later
		if s, err = readStats(d.Dir); err != nil {
			t.Fatal(err)
		}
	}
	return footprint{len(fds), s.Goroutines, files, int(s.HeapLive), d.sequence(t)}
}

// sequence returns how many DMBs the device has had, which the inode number of a new one says.
func (d *device) sequence(t *testing.T) int {
	t.Helper()
	c := startClient(t)
	defer c.Kill()
	fd := c.MustOpen(d.Path("dmbs", fmt.Sprintf("%016x", rand.Uint64()|1)), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	return int(uint32(c.MustStat(fd).Ino))
}

// churnFor lets the client churn and kills it, and children that hold its handles, after a while.
func (c *client) churnFor(t *testing.T, d *device, while time.Duration) {
	defer c.Kill()
	done := make(chan error, 1)
	go func() {
		var r CallReply
		done <- c.rpc.Call("Calls.Churn", ChurnArgs{Dir: d.Dir}, &r)
	}()
	select {
	case err := <-done: // it ends by itself only if something is wrong
		t.Errorf("churning: %v", err)
	case <-time.After(while):
	}
}

// ChurnArgs are where to churn.
type ChurnArgs struct{ Dir string }

// churnSizes are what DMBs are made of, from a doorbell page to a middling one.
var churnSizes = []int{4096, 16 << 10, 64 << 10, 256 << 10}

// A held DMB is one that a churning client has open.
type held struct {
	fd    int
	mem   []byte
	value byte // what the peer of this DMB stores everywhere
	own   bool
}

// Churn registers, attaches, exchanges and lets go at random until something is wrong or the process is killed.
func (s *Calls) Churn(a ChurnArgs, r *CallReply) error {
	var have []held
	if fd, err := unix.Open(a.Dir+"/procs/self", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err == nil {
		unix.Ftruncate(fd, 4096)
	}
	for {
		var h held
		var err error
		switch n := rand.IntN(10); {
		case n < 3:
			h, err = churnRegister(a.Dir)
		case n < 6:
			h, err = churnAttach(a.Dir)
		case n < 9 && len(have) > 0:
			err = have[rand.IntN(len(have))].exchange()
		case len(have) > 0:
			i := rand.IntN(len(have))
			err = have[i].letGo()
			have = append(have[:i], have[i+1:]...)
		}
		if err != nil && !churnExpects(err) {
			return err
		}
		if h.mem != nil {
			have = append(have, h)
		}
		if len(have) > 16 {
			err = have[0].letGo()
			have = have[1:]
		}
		if err != nil && !churnExpects(err) {
			return err
		}
	}
}

// churnExpects says whether an error is one that the others' deaths and attachments bring.
func churnExpects(err error) bool {
	for _, e := range []syscall.Errno{unix.ENOENT, unix.EBUSY, unix.EAGAIN, unix.EINTR, unix.ESTALE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func churnRegister(dir string) (held, error) {
	token := fmt.Sprintf("%016x", rand.Uint64()|1)
	fd, err := unix.Open(dir+"/dmbs/"+token, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return held{}, fmt.Errorf("register: %w", err)
	}
	size := churnSizes[rand.IntN(len(churnSizes))]
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Ftruncate(fd, int64(size))
	}
	if err != nil {
		return held{}, fmt.Errorf("size: %w", err)
	}
	return churnMap(fd, size, token, true)
}

func churnMap(fd, size int, token string, own bool) (held, error) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return held{}, fmt.Errorf("mmap: %w", err)
	}
	if err := unix.Madvise(mem, unix.MADV_POPULATE_WRITE); err != nil {
		return held{}, fmt.Errorf("populate: %w", err)
	}
	return held{fd, mem, token[15], own}, nil
}

// churnAttach attaches to somebody's DMB and rings its bell.
func churnAttach(dir string) (held, error) {
	names, err := os.ReadDir(dir + "/dmbs")
	if err != nil || len(names) == 0 {
		return held{}, err
	}
	token := names[rand.IntN(len(names))].Name()
	fd, err := unix.Open(dir+"/dmbs/"+token, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return held{}, fmt.Errorf("attach: %w", err)
	}
	var st unix.Stat_t
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		return held{}, fmt.Errorf("fstat: %w", err)
	}
	h, err := churnMap(fd, int(st.Size), token, false)
	if err != nil {
		return held{}, err
	}
	bell, err := unix.Open(dir+"/bells/"+token, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Write(bell, []byte{1})
		err = unix.Close(bell)
	}
	return h, err
}

// exchange stores into a peer's DMB, and looks into an own one: what is there is 0 or came from its own peer.
func (h held) exchange() error {
	const payload = 64
	if !h.own {
		at := payload + rand.IntN(len(h.mem)-payload-512)
		copy(h.mem[at:], strings.Repeat(string(h.value), 512))
		return nil
	}
	for i, b := range h.mem[payload:] {
		if b != 0 && b != h.value {
			return fmt.Errorf("byte %d of a DMB is %q; only %q is ever stored there", i+payload, b, h.value)
		}
	}
	return nil
}

func (h held) letGo() error { return errors.Join(unix.Munmap(h.mem), unix.Close(h.fd)) }
