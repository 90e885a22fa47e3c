// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
	"github.com/ismfs/ismfs/tree"
)

// Lines in conns of connections on TCP, of which the library tells the device the descriptor's number and the peer alone where it can.

// obeys carries out what it reads, a line of Python each, and says when it is done.
const obeys = `
import ctypes, os, select, socket, sys
def line(s):
    a, b = s.getsockname(), s.getpeername()
    return "%s %d %s %d %d" % (a[0], a[1], b[0], b[1], os.fstat(s.fileno()).st_ino)
def often(to, family=socket.AF_INET):
    s = None
    for _ in range(12):
        if s: s.close()
        s = socket.socket(family)
        s.connect(to)
    return s
def obey():
    for order in sys.stdin:
        exec(order, globals())
        print("done", flush=True)
if len(sys.argv) > 1: # executed by itself
    print("done", flush=True)
obey()
`

// An obedient is such a program under smc_run.
type obedient struct {
	t    *testing.T
	in   io.Writer
	says *logBuffer
	cmd  *exec.Cmd
	port string // of a connection that it has when all is done
	done int
}

func (d *device) startObedient(at *netns) *obedient {
	d.t.Helper()
	o := &obedient{t: d.t, says: new(logBuffer)}
	o.cmd = d.command(underRun, "python3", "-c", obeys)
	o.cmd.Stdout, o.cmd.Stderr = o.says, new(logBuffer)
	in, err := o.cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	o.in = in
	at.do(o.cmd.Start)
	d.t.Cleanup(func() {
		syscall.Kill(-o.cmd.Process.Pid, syscall.SIGKILL)
		o.cmd.Wait()
		if d.t.Failed() {
			d.t.Logf("it says %s%s", o.says, o.cmd.Stderr)
		}
	})
	return o
}

// do has an order carried out, and returns what it prints.
func (o *obedient) do(order string, args ...any) string {
	o.t.Helper()
	from := len(o.says.String())
	fmt.Fprintf(o.in, order+"\n", args...)
	o.done++
	waitFor(o.t, "the program", func() error {
		if n := strings.Count(o.says.String(), "done\n"); n != o.done {
			return fmt.Errorf("after %q it says %q, and %s", order, o.says, o.cmd.Stderr)
		}
		return nil
	})
	return strings.TrimSuffix(o.says.String()[from:], "done\n")
}

// finds reports whether the device says that it finds sockets by their descriptors, in the head of a process's block.
func (d *device) finds(c tree.Conn) bool {
	d.t.Helper()
	b, err := os.ReadFile(d.Path("procs", strconv.FormatUint(uint64(c.ProcessID), 10)))
	if err != nil || len(b) < 36 {
		d.t.Fatalf("%d bytes, %v", len(b), err)
	}
	return binary.NativeEndian.Uint32(b[32:])&1 != 0
}

// wantLines fails the test unless conns has exactly these connections of one role to or from a port, each as line prints it.
func (d *device) wantLines(when, port, role, want string) {
	d.t.Helper()
	var have []string
	for _, c := range d.connsTo(port) {
		have = append(have, fmt.Sprintf("%s %d %s %d %d\n", c.Local.Addr(), c.Local.Port(), c.Peer.Addr(), c.Peer.Port(), c.Inode))
		if c.Mode != tree.ModeTCP || c.Role != role || smc.DeclineCode(c.Reason) != smc.DeclPeerNoSMC {
			d.t.Errorf("%s: conns has %+v", when, c)
		}
	}
	lines := slices.Collect(strings.Lines(want))
	slices.Sort(have)
	slices.Sort(lines)
	if !slices.Equal(have, lines) {
		d.t.Errorf("%s: conns has\n%swant\n%s", when, strings.Join(have, ""), strings.Join(lines, ""))
	}
}

// A plainServer accepts in a network namespace and keeps what it has accepted.
func plainServer(t *testing.T, at *netns, network, address string) (port string) {
	t.Helper()
	var l net.Listener
	at.do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	var kept []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			kept = append(kept, c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		for _, c := range kept {
			c.Close()
		}
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// TestRunLines: conns shows each connection on TCP that there is, with the kernel's addresses and inode, and none that there is not: whoever has the
// process, wherever its network is, and where the device may not look at its descriptors.
func TestRunLines(t *testing.T) {
	need(t, "python3", "setpriv")
	// A process that has changed its uid is not to be looked at by others of that uid, until it says so.
	const nobody, open = "os.setgroups([]); os.setgid(65534); os.setuid(65534)", "; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)"
	for _, row := range []struct {
		name   string
		whole  bool     // lines are written so, since the device may not look
		daemon []string // starts it
		become string
		ns     func(*testing.T) *netns
	}{
		{name: "one's own", ns: ownNetns},
		{name: "another user's", become: nobody, ns: ownNetns},
		{name: "in another network namespace", ns: newNetns},
		{
			name: "where the device may not look", whole: true, ns: ownNetns, become: nobody + open,
			daemon: []string{"setpriv", "--bounding-set=-dac_override,-dac_read_search"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := mountDeviceBy(t, row.daemon, tempDir(t))
			needOption(t, d)
			ns := row.ns(t)
			for _, lines := range []func(*testing.T, *netns, *obedient){d.clientLines, d.serverLines} {
				o := d.startObedient(ns)
				if row.become != "" {
					o.do(row.become)
				}
				lines(t, ns, o)
				if conns := d.connsTo(o.port); len(conns) == 0 || d.finds(conns[0]) == row.whole {
					t.Errorf("what the device finds is not what it should: %+v", conns)
				}
			}
		})
	}
}

func (d *device) clientLines(t *testing.T, ns *netns, o *obedient) {
	port := plainServer(t, ns, "tcp4", "127.0.0.1:0")
	six := plainServer(t, ns, "tcp6", "[::1]:0")
	first := o.do(`s = often(("127.0.0.1", %s)); t = often(("127.0.0.1", %s)); print(line(s)); print(line(t))`, port, port)
	d.wantLines("two", port, "client", first)
	one := o.do(`t.close(); print(line(s))`)
	d.wantLines("one closed", port, "client", one)
	o.do(`f = open("/dev/null"); u = socket.socket(); assert u.fileno() > f.fileno() >= 0`)
	d.wantLines("its number a file's", port, "client", one)
	o.do(`f.close(); u.close(); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("127.0.0.1", %s))`, port)
	d.wantLines("its number a UDP socket's", port, "client", one)
	o.do(`u.close(); u = socket.socket(); u.bind(("127.0.0.1", 0)); u.listen(1)`)
	d.wantLines("its number a listener's", port, "client", one)
	d.wantLines("to IPv6", six, "client", o.do(`u.close(); u = often(("::1", %s), socket.AF_INET6); print(line(u))`, six))
	d.wantLines("and beside it", port, "client", one)
	mapped := o.do(`u.close(); u = often(("::ffff:127.0.0.1", %s), socket.AF_INET6); print(line(u))`, port)
	d.wantLines("to IPv4 from an IPv6 socket", port, "client", one+strings.ReplaceAll(mapped, "::ffff:", ""))
	o.do(`u.close(); n = os.dup(s.fileno()); s.close()`)
	d.wantLines("a copy", port, "client", one)
	o.do(`s = socket.socket(fileno=n); n = os.dup2(s.fileno(), 50); s.close()`)
	d.wantLines("a copy at a number", port, "client", one)
	o.do(`s = socket.socket(fileno=50); s.connect_ex(("127.0.0.1", %s)); r, w = os.pipe(); child = os.fork() or (os.close(w), os.read(r, 1), os._exit(0)); s.close()`, port)
	d.wantLines("a child's alone", port, "client", one)
	o.do(`os.close(w); os.waitpid(child, 0); os.close(r)`)
	waitFor(t, "the child's end", func() error {
		if left := d.connsTo(port); len(left) != 0 {
			return fmt.Errorf("conns has %+v", left)
		}
		return nil
	})
	again := o.do(`s = often(("127.0.0.1", %s)); print(line(s))`, port)
	d.wantLines("after that", port, "client", again)
	d.wantLines("without waiting", port, "client", again+o.do(
		`t = socket.socket(); t.setblocking(False); t.connect_ex(("127.0.0.1", %s)); select.select([], [t], []); print(line(t))`, port))
	o.port = port
	d.wantLines("its number once more", port, "client", o.do(`t.close(); t = often(("127.0.0.1", %s)); print(line(s)); print(line(t))`, port))
}

func (d *device) serverLines(t *testing.T, ns *netns, o *obedient) {
	port := strings.TrimSpace(o.do(`l = socket.create_server(("127.0.0.1", 0)); print(l.getsockname()[1])`))
	dial := func() (c net.Conn) {
		ns.do(func() (err error) {
			c, err = net.Dial("tcp4", "127.0.0.1:"+port)
			return err
		})
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := dial()
	dial()
	both := o.do(`s, t = l.accept()[0], l.accept()[0]; print(line(s)); print(line(t))`)
	d.wantLines("two accepted", port, "server", both)
	first.Close()
	if o.do(`print(s.recv(1))`) != "b''\n" {
		t.Error("no end is read")
	}
	d.wantLines("the client of one gone", port, "server", both)
	d.wantLines("one closed", port, "server", o.do(`s.close(); print(line(t))`))
	dial()
	d.wantLines("another in its place", port, "server", o.do(`s = l.accept()[0]; print(line(s)); print(line(t))`))
	o.do(`s.close()`)
	o.port = port
}

// TestRunPlain: a program with connections on TCP that closes, copies and forks at once (preload/test/plain.c). Without -d, which takes the longer way.
func TestRunPlain(t *testing.T) {
	d := mountDevice(t)
	needOption(t, d)
	program := filepath.Join(bin, "smc-run-test")
	d.wantPlain(func() { d.run(asItIs, program, "plain") })
	d.wantPlain(func() { d.run(asItIs, filepath.Join(bin, "smc_run"), program, "plain") })
	if conns := d.Read("conns"); conns != "" {
		t.Errorf("conns still has\n%s", conns)
	}
}

// TestRunParts: what the library knows of plain connections, when the processor's clock jumps, and when another thread finds out otherwise meanwhile.
func TestRunParts(t *testing.T) {
	if out, err := exec.Command(filepath.Join(bin, "smc-run-parts")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// startObedientAndServer starts an obedient program, and a server on TCP that it can connect to.
func (d *device) startObedientAndServer() (o *obedient, port string) {
	d.t.Helper()
	needOption(d.t, d)
	ns := ownNetns(d.t)
	port = plainServer(d.t, ns, "tcp4", "127.0.0.1:0")
	return d.startObedient(ns), port
}

// TestRunLinesExec: a program that executes another one leaves its lines to it, and none more.
func TestRunLinesExec(t *testing.T) {
	need(t, "python3")
	d := mountDevice(t)
	o, port := d.startObedientAndServer()
	one := o.do(`s = often(("127.0.0.1", %s)); t = often(("127.0.0.1", %s)); s.set_inheritable(True); n = s.fileno(); print(line(s))`, port, port)
	for range 3 {
		o.do(`os.execv(sys.executable, [*sys.orig_argv[:3], str(n)])`)
		d.wantLines("executed", port, "client", one)
		o.do(`s = socket.socket(fileno=int(sys.argv[1])); n = s.fileno(); u = often(("127.0.0.1", %s)); v = often(("127.0.0.1", %s)); x, y = line(u), line(v)`, port, port)
		d.wantLines("and more", port, "client", one+o.do(`print(x); print(y)`))
		if n := d.slotsToFind(d.connsTo(port)[0]); n > 3 {
			t.Errorf("%d slots of 3 connections", n)
		}
	}
	d.wantLines("its number once more", port, "client", o.do(`u.close(); v.close(); s.close(); s = often(("127.0.0.1", %s)); print(line(s))`, port))
	o.do(`s.close()`)
	d.wantLines("none", port, "client", "")
}

// slotsToFind returns how many slots of a process tell a descriptor.
func (d *device) slotsToFind(c tree.Conn) (n int) {
	d.t.Helper()
	b, err := os.ReadFile(d.Path("procs", strconv.FormatUint(uint64(c.ProcessID), 10)))
	if err != nil {
		d.t.Fatal(err)
	}
	for slot := range slices.Chunk(b[procs.OffSlots:], procs.SlotLen) {
		if _, c, _, err := procs.ParseSlot(slot); err == nil && c != nil && c.Descriptor != 0 {
			n++
		}
	}
	return n
}

// TestRunLinesLeaderGone: the other threads of a process have its connections when its first one has ended.
func TestRunLinesLeaderGone(t *testing.T) {
	need(t, "python3")
	d := mountDevice(t)
	o, port := d.startObedientAndServer()
	one := o.do(`s = often(("127.0.0.1", %s)); print(line(s))`, port)
	o.do(`import threading; threading.Thread(target=lambda: (print("done", flush=True), obey())).start(); ctypes.CDLL(None).syscall(%d, 0)`, syscall.SYS_EXIT)
	waitFor(t, "the thread's end", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.connsTo(port)[0].PID))
		if _, state, _ := strings.Cut(string(stat), ") "); err != nil || !strings.HasPrefix(state, "Z") {
			return fmt.Errorf("it is %q, %v", stat, err)
		}
		return nil
	})
	d.wantLines("without its leader", port, "client", one)
}

// TestRunLinesSetuid: a process that changes its uid when it has a block says itself what it has, once the daemon has found that it may not look any more.
func TestRunLinesSetuid(t *testing.T) {
	need(t, "python3", "setpriv")
	d := mountDeviceBy(t, []string{"setpriv", "--bounding-set=-dac_override,-dac_read_search"}, tempDir(t))
	o, port := d.startObedientAndServer()
	d.wantLines("before", port, "client", o.do(`s = often(("127.0.0.1", %s)); print(line(s))`, port))
	o.do(`os.setgroups([]); os.setgid(65534); os.setuid(65534); ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)`) // as in TestRunLines
	d.wantLines("changed", port, "client", "")
	d.wantLines("after", port, "client", o.do(`t = often(("127.0.0.1", %s)); print(line(t))`, port))
}
