// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/ismfs/ismfs/smc"
	"golang.org/x/sys/unix"
)

// An intrusion is a connection in SMC-D mode between the attacker, by hand, and the victim, which reads and writes.
type intrusion struct {
	*assault
	v             *peerConn // the victim's end
	own, victims  rawDMB    // the attacker's DMB, and the victim's as the attacker is attached to it
	page, theirs  rawDMB    // doorbell pages, if there are any
	read, written func() (int, error)
}

// intrude makes one, as a process that has no link group, or with doorbell pages.
func (s *scene) intrude(paged bool) *intrusion {
	s.t.Helper()
	var want handshakes
	i := &intrusion{own: s.a.rawRegister(s.d, 64<<10)}
	id, page := uint32(0), uint64(0)
	right := func(c *confirmation) {}
	if paged {
		id = s.a.id
		i.page = s.a.rawRegister(s.d, 4096)
		right = func(c *confirmation) {
			page = c.accept.FCE.Page()
			c.msg.FCE.SetPage(i.page.token)
			c.msg.SetBit(1, true) // whatever it announces later
		}
	}
	i.assault, i.v = s.confirm(confirmRow{"right", right, fine}, id, i.own, &want)
	wantError(s.t, "SetDeadline", i.SetDeadline(10*patience), nil)
	wantError(s.t, "SetDeadline", i.v.SetDeadline(patience), nil)
	i.victims = s.a.rawAttach(s.d, uint64(i.v.Info().Token), i.v.Info().ReadBuffer+smc.CDCLen)
	if paged {
		i.theirs = s.a.rawAttach(s.d, page, 4096)
	}
	if copied := s.d.Read("dmb_copy")[0] == '1'; (i.victims.mapping == 0) != copied {
		s.t.Fatalf("with dmb_copy %v the victim's DMB can be mapped: %v", copied, i.victims.mapping != 0)
	}
	i.read = later(func() (int, error) {
		for n := 0; ; {
			b, err := i.v.Read(64 << 10)
			if n += len(b); err != nil {
				return n, err
			}
		}
	})
	i.written = later(func() (int, error) {
		_, err := i.v.Send(1, 1<<30, 64<<10)
		return 0, err
	})
	return i
}

// harmless fails the test unless err is how a connection with such a peer may end: anything but a hang.
func harmless(t *testing.T, what string, err error) {
	t.Helper()
	for _, e := range []error{nil, io.EOF, syscall.ECONNRESET, syscall.EPROTO, syscall.EPIPE} {
		if errors.Is(err, e) {
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}

// over ends the attacker's half, and sees that the victim's ends then. It returns what the victim wrote.
func (i *intrusion) over(s *scene, what string) (extra int64) {
	s.t.Helper()
	i.Close()
	_, err := i.read()
	harmless(s.t, what+": the victim's Read", err)
	_, err = i.written()
	harmless(s.t, what+": the victim's Write", err)
	extra = int64(i.v.Info().BytesWritten)
	wantError(s.t, what+": the victim's Close", i.v.Close(), nil)
	for _, r := range []rawDMB{i.own, i.victims, i.page, i.theirs} {
		s.a.drop(r)
	}
	return extra
}

func producer(wrap uint16, count uint32) uint64 {
	return smc.ProducerWord(smc.Cursor{Wrap: wrap, Count: count})
}

func consumer(wrap uint16, count uint32, p smc.ProducerFlags, f smc.StateFlags) uint64 {
	return smc.ConsumerWord(smc.Cursor{Wrap: wrap, Count: count}, p, f)
}

// TestHostileHeaders: words that no peer may write end the victim's connection with EPROTO, and odd ones that it may write
// end nothing.
func TestHostileHeaders(t *testing.T) { scenes(t, testHostileHeaders) }

func testHostileHeaders(t *testing.T, s *scene) {
	const ring = 64<<10 - smc.CDCLen
	type word struct {
		off int64
		w   uint64
	}
	prod := func(w uint64) word { return word{smc.OffProducer, w} }
	cons := func(w uint64) word { return word{smc.OffConsumer, w} }
	var extra int64
	for _, row := range []struct {
		name  string
		words []word
		want  error // of the victim's Read; nil: it goes on
	}{
		{"count of the ring's length", []word{prod(producer(0, ring))}, syscall.EPROTO},
		{"count beyond the ring", []word{prod(producer(0, math.MaxUint32))}, syscall.EPROTO},
		{"wrap without a count", []word{prod(producer(2, 0))}, syscall.EPROTO},
		{"more than a ring", []word{prod(producer(1, 1))}, syscall.EPROTO},
		{"wrap backwards", []word{prod(producer(math.MaxUint16, 5))}, syscall.EPROTO},
		{"all ones", []word{prod(math.MaxUint64)}, syscall.EPROTO},
		{"producer backwards", []word{prod(producer(0, 1000)), prod(producer(0, 999))}, syscall.EPROTO},
		{"producer back to zero", []word{prod(producer(0, 1000)), prod(0)}, syscall.EPROTO},
		{"consumer ahead of what was written", []word{cons(consumer(1, 1, 0, 0))}, syscall.EPROTO},
		{"consumer beyond the ring", []word{cons(consumer(0, ring, 0, 0))}, syscall.EPROTO},
		{"consumer all ones", []word{cons(math.MaxUint64)}, syscall.EPROTO},
		{"consumer backwards", []word{cons(consumer(0, 1000, 0, 0)), cons(consumer(0, 10, 0, 0))}, syscall.EPROTO},
		{"done, and not", []word{cons(consumer(0, 0, 0, smc.PeerDoneWriting)), cons(0)}, io.EOF},
		{"closed before data", []word{cons(consumer(0, 0, 0, smc.PeerConnClosed)), prod(producer(0, 100))}, io.EOF},
		{"closed and aborted", []word{cons(consumer(0, 0, 0, smc.PeerConnClosed|smc.PeerConnAbort|smc.PeerDoneWriting))}, syscall.ECONNRESET},
		{"aborted before data", []word{cons(consumer(0, 0, 0, smc.PeerConnAbort)), prod(producer(0, 100))}, syscall.ECONNRESET},
		{"state flags that nobody knows", []word{cons(consumer(0, 0, 0, 0x1f))}, nil},
		{"producer flags that nobody knows", []word{cons(consumer(0, 0, 0x0f, 0))}, nil},
		{"urgent data", []word{cons(consumer(0, 0, 0x60, 0))}, nil},
		{"write_blocked, and nothing there", []word{cons(consumer(0, 0, smc.WriteBlocked, 0))}, nil},
		{"wait states that nobody knows", []word{{24, math.MaxUint64}}, nil},
		{"reserved bytes", []word{{0, math.MaxUint64}}, nil},
		{"a whole ring, twice", []word{prod(producer(0, ring-1)), prod(producer(1, ring-2))}, nil},
	} {
		i := s.intrude(false)
		time.Sleep(moment) // its Read sleeps, its Write too
		for _, w := range row.words {
			s.a.word(i.victims, w.off, w.w)
			s.a.ring(i.victims)
			time.Sleep(moment / 5)
		}
		if row.want != nil {
			_, err := i.read()
			wantError(t, row.name, err, row.want)
			i.read = func() (int, error) { return 0, err }
		}
		extra += i.over(s, row.name)
	}

	i := s.intrude(true)
	time.Sleep(moment)
	for range 10 {
		s.a.word(i.victims, smc.OffConsumer+8, 0x02_02<<32) // both of its sides sleep on the bell that the victim has not opened
		s.a.ring(i.theirs)
		time.Sleep(moment / 10)
	}
	extra += i.over(s, "the bell of one who sleeps on his page only")
	s.well("after hostile headers")
	s.finish(extra, handshakes{})
}

// ring wakes who sleeps on the DMB, by the futex and by the bell.
func (a *attacker) ring(r rawDMB) {
	a.t.Helper()
	a.storm(r, "wake", 1, 0)
	if r.mapping != 0 {
		a.storm(rawDMB{token: r.token, size: r.size}, "wake", 1, 0)
	}
}

// TestHostileTCP: bytes on the idle TCP connection, and a FIN and a reset in the middle.
func TestHostileTCP(t *testing.T) { scenes(t, testHostileTCP) }

func testHostileTCP(t *testing.T, s *scene) {
	i := s.intrude(false)
	i.say([]byte("x"))
	_, err := i.read()
	wantError(t, "Read after a byte on TCP", err, syscall.EPROTO)
	i.read = func() (int, error) { return 0, nil }
	extra := i.over(s, "a byte on TCP")
	for _, linger := range []int{0, -1} {
		i := s.intrude(false)
		wantError(t, "SetLinger", i.SetLinger(linger), nil)
		time.Sleep(moment)
		extra += i.over(s, fmt.Sprint("linger ", linger))
	}
	s.finish(extra, handshakes{})
}

// TestHostileStorms: an attacker's threads write without a pause, each into one thing, while the victim reads and writes.
// ISMFS_SOAK says for how long, over and over.
func TestHostileStorms(t *testing.T) { scenes(t, testHostileStorms) }

func testHostileStorms(t *testing.T, s *scene) {
	lasts := 100 * time.Millisecond
	var until time.Time
	if text := os.Getenv("ISMFS_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("ISMFS_SOAK: %v", err)
		}
		until = time.Now().Add(d)
	}
	var extra int64
	kinds := []string{"words", "plausible", "wake", "bytes", "header", "remove", "flags"}
	for seed := uint64(1); seed <= 3 || time.Now().Before(until); seed++ {
		for _, kind := range kinds {
			i := s.intrude(false)
			s.a.storm(i.victims, kind, seed, lasts)
			if kind == "bytes" || kind == "remove" {
				s.a.storm(i.own, kind, seed, lasts)
			}
			extra += i.over(s, "storm of "+kind)
		}
	}
	s.well("after the storms")
	i := s.intrude(true)
	for _, kind := range []string{"bytes", "wake", "remove", "page"} {
		s.a.storm(i.theirs, kind, 1, lasts)
		s.a.storm(i.page, kind, 2, lasts)
	}
	s.well("beside storms on a page")
	both := later(func() (int, error) { s.a.storm(i.theirs, "page", 3, 4*lasts); return 0, nil })
	s.well("while there is a storm on a page")
	both()
	extra += i.over(s, "storm on a page")
	s.finish(extra, handshakes{})
}

// TestHostileBell: a peer that reads the victim's bell, faster than the victim can, keeps it from hearing the peer and from
// nothing else: deadlines come and Close returns.
func TestHostileBell(t *testing.T) { scenes(t, testHostileBell) }

func testHostileBell(t *testing.T, s *scene) {
	i := s.intrude(false)
	theft := later(func() (int, error) { s.a.storm(i.victims, "steal", 1, 40*moment); return 0, nil })
	time.Sleep(2 * moment) // both its Read and its Write sleep on the bell
	began := time.Now()
	wantError(t, "SetDeadline", i.v.SetDeadline(moment), nil)
	for _, call := range []func() (int, error){i.read, i.written} {
		_, err := call()
		wantError(t, "a call of the victim's with a deadline", err, os.ErrDeadlineExceeded)
	}
	extra := int64(i.v.Info().BytesWritten)
	wantError(t, "SetDeadline", i.v.SetDeadline(0), nil)
	read := later(func() ([]byte, error) { return i.v.Read(1) })
	time.Sleep(2 * moment)
	wantError(t, "Close", i.v.Close(), nil)
	_, err := read()
	wantError(t, "Read when the victim closes", err, net.ErrClosed)
	if took := time.Since(began); took > 35*moment {
		t.Errorf("it took %v: as long as the bell was stolen from", took)
	}
	i.Close()
	theft()
	for _, r := range []rawDMB{i.own, i.victims} {
		s.a.drop(r)
	}
	s.finish(extra, handshakes{})
}

// storm writes into a DMB for a while, with bytes that follow from the seed.
func (a *attacker) storm(r rawDMB, kind string, seed uint64, lasts time.Duration) {
	a.t.Helper()
	bell := a.MustOpen(a.d.Path("bells", tokenName(r.token)), unix.O_RDWR|unix.O_NONBLOCK)
	_, err := a.call("Storm", CallArgs{
		FD: r.mapping, Flags: r.fd, Value: uint32(bell), Len: r.size, Path: kind, Off: int64(seed), Timeout: lasts,
	})
	if err != nil {
		a.t.Errorf("storm: %v", err)
	}
	wantError(a.t, "close of a bell", a.client.Close(bell), nil)
}

// A prey is what a storm writes into: by its mapping, or by system call where there is none.
type prey struct {
	m        []byte
	fd, bell int
	err      error
}

func (p *prey) put(b []byte, off int) {
	switch {
	case p.m == nil:
		if _, err := unix.Pwrite(p.fd, b, int64(off)); err != nil && p.err == nil {
			p.err = err
		}
	case len(b) == 8 && off%8 == 0:
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&p.m[off])), binary.NativeEndian.Uint64(b))
	case len(b) == 4 && off%4 == 0:
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&p.m[off])), binary.NativeEndian.Uint32(b))
	default:
		copy(p.m[off:], b)
	}
}

func (p *prey) put64(w uint64, off int) { p.put(binary.NativeEndian.AppendUint64(nil, w), off) }

// wake wakes the owner by the futex, or by the bell where that is all there is.
func (p *prey) wake() {
	if p.m == nil {
		unix.Write(p.bell, []byte{0})
		return
	}
	word := (*uint32)(unsafe.Pointer(&p.m[smc.OffSignal]))
	atomic.AddUint32(word, 1)
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), 1, math.MaxInt32, 0, 0, 0)
}

// remove takes the memory away, as far as anybody lets it.
func (p *prey) remove(size int) {
	if p.m != nil {
		unix.Madvise(p.m, unix.MADV_REMOVE)
		return
	}
	unix.Fallocate(p.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(size))
	unix.Ftruncate(p.fd, 0)
}

// steal swallows what the owner is rung for, in a few threads that wait for it.
func (p *prey) steal(lasts time.Duration) {
	unix.SetNonblock(p.bell, false)
	var stopped atomic.Bool
	var all sync.WaitGroup
	left := atomic.Int32{}
	for range 4 {
		left.Add(1)
		all.Go(func() {
			for b := make([]byte, 256); !stopped.Load(); {
				unix.Read(p.bell, b)
			}
			left.Add(-1)
		})
	}
	time.Sleep(lasts)
	for stopped.Store(true); left.Load() > 0; time.Sleep(time.Millisecond) {
		unix.Write(p.bell, []byte{0})
	}
	all.Wait()
}

// Storm is the client's side of storm: at least one round.
func (s *Calls) Storm(a CallArgs, r *CallReply) error {
	s.mu.Lock()
	p := &prey{m: s.mappings[a.FD], fd: a.Flags, bell: int(a.Value)}
	s.mu.Unlock()
	if a.Path == "steal" {
		p.steal(a.Timeout)
		return nil
	}
	rnd := rand.New(rand.NewPCG(uint64(a.Off), 1))
	ring := uint32(a.Len) - smc.CDCLen
	var prod smc.Cursor
	for until := time.Now().Add(a.Timeout); ; r.N++ {
		switch a.Path {
		case "wake":
		case "words":
			p.put64(rnd.Uint64(), 8*(1+rnd.IntN(3)))
		case "plausible": // cursors that nearly always are right
			prod = prod.Add(uint32(rnd.IntN(3000)), ring)
			p.put64(smc.ProducerWord(prod), smc.OffProducer)
			if r.N%1000 == 999 {
				p.put64(smc.ConsumerWord(smc.Cursor{Count: uint32(rnd.IntN(int(ring)))}, 0, 0), smc.OffConsumer)
			}
		case "flags":
			p.put([]byte{6: byte(rnd.Uint32()) & 0xf0, 7: 0}, smc.OffConsumer)
			p.put(binary.NativeEndian.AppendUint32(nil, rnd.Uint32()&0x0303), smc.OffWait)
		case "bytes":
			p.put([]byte{byte(rnd.Uint32())}, rnd.IntN(a.Len))
		case "header": // whole, and torn
			b := make([]byte, 1+rnd.IntN(smc.CDCLen))
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
			p.put(b, rnd.IntN(smc.CDCLen))
		case "page":
			p.put64(rnd.Uint64(), 8*rnd.IntN(a.Len/8))
		case "remove":
			p.remove(a.Len)
		}
		if a.Timeout == 0 || rnd.IntN(8) == 0 {
			p.wake()
		}
		if !time.Now().Before(until) {
			return r.answer(p.err)
		}
	}
}
