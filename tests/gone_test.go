// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/smc"
)

// Clients that connect, write and end at once: the server may come to their Confirm when their DMBs have gone. Every byte arrives
// all the same, over SMC-D, and then the end that TCP would give.

// A collector is a server that takes such clients one after another.
type collector struct {
	port string
	// next returns what was read of the next client until the end, and the end: nil, or ECONNRESET.
	next func() (n int, end error)
	// held is what the server's process holds.
	held func() string
}

// nths are the first n bytes that clients write (preload/test/stress.c).
func nths(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func (d *device) collectInGo() *collector {
	server := startPeer(d.t, d.Point)
	l := server.Listen(overSMC, "tcp", "127.0.0.1:0")
	c := &collector{port: l.Address[strings.LastIndexByte(l.Address, ':')+1:]}
	accepted := acceptAll(l)
	c.next = func() (int, error) {
		var conn *peerConn
		select {
		case conn = <-accepted:
		case <-time.After(patience):
			d.t.Fatal("the server accepts nothing")
		}
		if i := conn.Info(); i.Mode != libsmc.SMCD {
			d.t.Errorf("the server's end: %s", i)
		}
		got, end := conn.ReadAll()
		if string(got) != string(nths(len(got))) {
			d.t.Errorf("%d bytes arrive changed", len(got))
		}
		if _, err := conn.Write([]byte("x")); err == nil {
			d.t.Error("a write to a client that has gone succeeds")
		}
		wantError(d.t, "Close", conn.Close(), nil)
		server.CloseIdle()
		return len(got), end
	}
	c.held = func() string {
		h := server.Held()
		return fmt.Sprint(h.Descriptors, h.Mappings, standIns(d.t, server.cmd.Process.Pid))
	}
	return c
}

// collectInC is one under smc_run. when: late, it looks at a Confirm when the client has gone; soon; or busy, it never sleeps.
func (d *device) collectInC(when string) *collector {
	c := &collector{port: freePort(d.t)}
	server := d.start(underRun, filepath.Join(bin, "smc-run-stress"), "collect", c.port, when)
	listening(d.t, c.port)
	taken := 0
	c.next = func() (n int, end error) {
		waitFor(d.t, "the server's word", func() error {
			var lines []string
			for line := range strings.Lines(server.out.String()) {
				if strings.HasPrefix(line, "got ") {
					lines = append(lines, line)
				}
			}
			if len(lines) <= taken {
				return errors.New("it says nothing")
			}
			var how string
			line := strings.TrimSpace(lines[taken])
			if _, err := fmt.Sscanf(line, "got %d, then ", &n); err != nil {
				d.t.Fatalf("it says %q", line)
			}
			_, how, _ = strings.Cut(line, "then ")
			switch how {
			case "the end":
			case syscall.ECONNRESET.Error(), "Connection reset by peer":
				end = syscall.ECONNRESET
			default:
				end = errors.New(how)
			}
			return nil
		})
		taken++
		return n, end
	}
	c.held = func() string { return fmt.Sprint(descriptors(d.t, server), standIns(d.t, server.cmd.Process.Pid)) }
	return c
}

// standIns counts mappings that are of no file, and shared: those that stand in for a client's DMB, and what is always there.
func standIns(t *testing.T, pid int) int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "/dev/zero (deleted)")
}

// wantWhole runs one client that writes n bytes, and ends so; at the server there is one more connection, in SMC-D mode.
func (d *device) wantWhole(c *collector, n int, end error, client func()) {
	d.t.Helper()
	d.wantGrowth(int64(n), func() {
		d.wantSMC(1, func() {
			client()
			got, how := c.next()
			if got != n || !errors.Is(how, end) || end == nil && how != nil {
				d.t.Errorf("%d of %d bytes, then %v, want %v", got, n, how, end)
			}
		})
	})
}

// inAllServers runs a test with each kind of server, in both modes of dmb_copy; nothing may stay behind.
func inAllServers(t *testing.T, f func(d *device, c *collector)) {
	for name, start := range map[string]func(d *device) *collector{
		"Go":      (*device).collectInGo,
		"C, late": func(d *device) *collector { return d.collectInC("late") },
		"C, soon": func(d *device) *collector { return d.collectInC("soon") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBothCopyModesOf(t, func(t *testing.T, d *device) {
				c := start(d)
				d.wantWhole(c, 10, nil, func() { d.once(c.port, 10, "close") }) // what is made once is made now
				d.WantCount(0)
				held := c.held()
				f(d, c)
				d.WantCount(0)
				d.wantNoneTo(c.port)
				waitFor(t, "the server to let go", func() error {
					if now := c.held(); now != held {
						return fmt.Errorf("it holds %s, before %s", now, held)
					}
					return nil
				})
			})
		})
	}
}

// once is a client under smc_run. Signals end some.
func (d *device) once(port string, n int, how string) {
	d.t.Helper()
	cmd := d.command(underRun, filepath.Join(bin, "smc-run-stress"), "once", port, fmt.Sprint(n), how)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		d.t.Fatalf("the client: %v\n%s", err, out)
	}
}

// TestRunOneShot: C clients that end in every way.
func TestRunOneShot(t *testing.T) {
	t.Parallel()
	inAllServers(t, func(d *device, c *collector) {
		for _, how := range []string{"close", "shutdown", "exit", "_exit", "quick_exit", "exit_group", "abort", "kill", "term", "exec", "linger"} {
			var end error
			if how == "linger" {
				end = syscall.ECONNRESET
			}
			for _, n := range []int{5, 50000, 1} {
				d.t.Logf("%s after %d bytes", how, n)
				d.wantWhole(c, n, end, func() { d.once(c.port, n, how) })
			}
		}
	})
}

// TestOneShot: Go clients.
func TestOneShot(t *testing.T) {
	t.Parallel()
	inAllServers(t, func(d *device, c *collector) {
		for how, finish := range map[string]func(*peerConn) error{
			"killed":                  func(*peerConn) error { return nil },
			"closed and killed":       (*peerConn).Close,
			"SetLinger(0) and closed": func(c *peerConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
		} {
			var end error
			if strings.HasPrefix(how, "SetLinger") {
				end = syscall.ECONNRESET
			}
			d.t.Log(how)
			d.wantWhole(c, 50000, end, func() {
				client := startPeer(d.t, d.Point)
				conn := client.MustDial(overSMC, "tcp", "127.0.0.1:"+c.port)
				n, err := conn.Write(nths(50000))
				if n != 50000 || err != nil {
					d.t.Fatalf("Write: %d, %v", n, err)
				}
				wantError(d.t, how, finish(conn), nil)
				client.Kill()
			})
		}
	})
}

// A goneClient is one by hand, whose DMB has certainly gone when the server comes to its Confirm.
type goneClient struct {
	name  string
	flags smc.StateFlags // its last word
	page  bool           // the DMB is there, only the doorbell page has gone
	end   func(t *testing.T, c *assault)
	want  error
}

var goneClients = []goneClient{
	{"closed", smc.PeerDoneWriting | smc.PeerConnClosed, false, finNow, nil},
	{"closed, and a FIN that is late", smc.PeerDoneWriting | smc.PeerConnClosed, false, finLater, nil},
	{"done writing", smc.PeerDoneWriting, false, finNow, nil},
	{"no last word", 0, false, finNow, nil},
	{"no last word, and a FIN that is late", 0, false, finLater, nil},
	{"aborted", smc.PeerConnAbort, false, finNow, syscall.ECONNRESET},
	{"no last word, reset", 0, false, reset, syscall.ECONNRESET},
	{"closed, reset", smc.PeerDoneWriting | smc.PeerConnClosed, false, reset, nil},
	{"closed, only the page has gone", smc.PeerDoneWriting | smc.PeerConnClosed, true, finNow, nil},
}

func finNow(t *testing.T, c *assault) { wantError(t, "CloseWrite", c.CloseWrite(), nil) }

func finLater(t *testing.T, c *assault) {
	time.Sleep(100 * time.Millisecond)
	finNow(t, c)
}

func reset(t *testing.T, c *assault) {
	wantError(t, "SetLinger", c.SetLinger(0), nil)
	wantError(t, "Close", c.Close(), nil)
}

// confirmGone is a client by hand up to its Confirm, with what it has written in the server's DMB.
func (a *attacker) confirmGone(port string, g *goneClient, written []byte) *assault {
	a.t.Helper()
	c := a.assault(a.MustDial(marked, "tcp", "127.0.0.1:"+port))
	accept := c.accepted(a.Proposal())
	own, page := a.rawRegister(a.d, 64<<10), a.rawRegister(a.d, 4096)
	if written != nil {
		theirs := a.rawAttach(a.d, accept.Token, smc.UncompressBufSize(accept.DMBESize))
		a.put(theirs, append([]byte{smc.CDCType}, make([]byte, 7)...), 0)
		a.put(theirs, written, smc.CDCLen)
		a.word(theirs, smc.OffProducer, smc.ProducerWord(smc.Cursor{Count: uint32(len(written))}))
		a.word(theirs, smc.OffConsumer, smc.ConsumerWord(smc.Cursor{}, 0, g.flags))
		a.drop(theirs)
	}
	confirm := a.Answer(smc.MsgConfirm, own)
	confirm.FCE.SetPage(uint64(page.token))
	confirm.SetBit(1, true)
	a.drop(page)
	gone := page
	if !g.page {
		a.drop(own)
		gone = own
	}
	waitFor(a.t, "the end of a DMB", func() error {
		if _, err := os.Stat(a.d.Path("dmbs", tokenName(gone.token))); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("stat says %v", err)
		}
		return nil
	})
	c.say(encoded(&confirm))
	return c
}

// TestGoneClient: clients by hand.
func TestGoneClient(t *testing.T) {
	t.Parallel()
	inAllServers(t, func(d *device, c *collector) {
		before := d.smcCounts()
		for i := range goneClients {
			g := &goneClients[i]
			a := startAttacker(d.t, d)
			conn := a.confirmGone(c.port, g, nths(1000))
			g.end(d.t, conn)
			if got, end := c.next(); got != 1000 || !errors.Is(end, g.want) {
				d.t.Errorf("%s: %d bytes, then %v, want %v", g.name, got, end, g.want)
			}
			conn.Close() // nobody but the test has it any more
			a.Kill()
		}
		after := d.smcCounts()
		if n := after.servers - before.servers; n != uint64(len(goneClients)) || after.fallbacks != before.fallbacks || after.givenUp != before.givenUp {
			d.t.Errorf("%d connections at the server, %+v, before %+v", n, after, before)
		}
	})
}

// TestGoneClientThatLives: a client whose DMB is not there, and that does not end, or that has never come to the server's, gets no
// connection; others do not wait for it.
func TestGoneClientThatLives(t *testing.T) {
	d := mountSMC(t)
	c := d.collectInGo()
	for _, written := range [][]byte{nths(1000), nil} {
		a := startAttacker(t, d)
		before := d.smcCounts()
		conn := a.confirmGone(c.port, &goneClients[0], written)
		if written == nil {
			finNow(t, conn)
		} else {
			d.wantWhole(c, 10, nil, func() { d.once(c.port, 10, "close") })
		}
		_, err := conn.ReadFull(1)
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("the server's end of TCP: %v", err)
		}
		waitFor(t, "the handshake to fail", func() error {
			if after := d.smcCounts(); after.givenUp != before.givenUp+1 {
				return fmt.Errorf("%d have failed", after.givenUp-before.givenUp)
			}
			return nil
		})
		wantError(t, "Close", conn.Close(), nil)
		a.Kill()
	}
	d.WantCount(0)
}

// TestGoneClientsFIN: the server looks for the FIN all the time. For a moment the kernel's poll says POLLIN of it, and nothing more.
func TestGoneClientsFIN(t *testing.T) {
	d := mountSMC(t)
	c := d.collectInC("busy")
	a := startAttacker(t, d)
	defer a.Kill()
	for range 200 {
		conn := a.confirmGone(c.port, &goneClient{name: "no last word"}, nths(1000))
		time.Sleep(time.Millisecond) // the server has come to the Confirm
		finNow(t, conn)
		if got, end := c.next(); got != 1000 || end != nil {
			t.Fatalf("%d of 1000 bytes, then %v", got, end)
		}
		conn.Close() // nobody but the test has it any more
	}
}
