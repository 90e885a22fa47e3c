// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/tree"
)

// patience is how long a test waits for what must come. It is a limit for broken code, not a measure: raise it freely.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if role := os.Getenv(peerVariable); role != "" {
		runPeer(role)
		return
	}
	code := m.Run()
	for _, d := range daemons {
		d.stop()
	}
	os.RemoveAll(built)
	os.Exit(code)
}

// A daemon is a device mounted by a separate process, as always: a daemon must not use its own mount.
type daemon struct {
	copy    tree.DMBCopy
	once    sync.Once
	point   string
	cmd     *exec.Cmd
	log     bytes.Buffer
	dev     *tree.Device
	process *Process
	err     error
}

// One daemon for each mode, started when a test first asks.
var daemons = []*daemon{{copy: tree.Merged}, {copy: tree.Separated}}

var modes = map[string]*daemon{"merged": daemons[0], "copied": daemons[1]}

// inModes runs a test in both modes.
func inModes(t *testing.T, f func(t *testing.T, d *daemon)) {
	for name, d := range modes {
		t.Run(name, func(t *testing.T) { f(t, d.started(t)) })
	}
}

// started returns the daemon, running. Without the means to mount the test is skipped, but not in CI.
func (d *daemon) started(t testing.TB) *daemon {
	t.Helper()
	if err := missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must have it: ", err)
		}
		t.Skip(err)
	}
	d.once.Do(func() { d.err = d.start() })
	if d.err != nil {
		t.Fatalf("the daemon: %v\n%s", d.err, &d.log)
	}
	return d
}

func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// command returns the path of ismfs: that of ISMFS_TEST_BIN, which the Makefile builds, or a fresh one.
var command = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("ISMFS_TEST_BIN"); dir != "" {
		return filepath.Join(dir, "ismfs"), nil
	}
	dir, err := os.MkdirTemp("", "ismfs-stream-")
	if err != nil {
		return "", err
	}
	built = dir
	out, err := exec.Command("go", "build", "-o", dir, "../../../cmd/ismfs").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "ismfs"), err
})

// built is the directory of a fresh ismfs, to be removed in the end.
var built string

func (d *daemon) start() error {
	var err error
	if d.point, err = os.MkdirTemp("", "ismfs-stream-"); err != nil {
		return err
	}
	bin, err := command()
	if err != nil {
		return err
	}
	mount := filepath.Join(d.point, "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		return err
	}
	d.cmd = exec.Command(bin, "mount", "--foreground", "--sockets=off", mount)
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if d.dev, err = tree.Find(mount); err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	if err := d.dev.SetDMBCopy(d.copy); err != nil {
		return err
	}
	b, err := dmb.OpenBlock(d.dev, 4096)
	if err != nil {
		return err
	}
	d.process = NewProcess(b)
	return nil
}

// stop unmounts and ends the daemon.
func (d *daemon) stop() {
	if d.process != nil {
		d.process.Close()
	}
	if d.cmd != nil && d.cmd.Process != nil {
		for syscall.Unmount(filepath.Join(d.point, "mount"), syscall.MNT_DETACH) == nil {
		}
		d.cmd.Process.Signal(syscall.SIGTERM)
		d.cmd.Wait()
	}
	os.RemoveAll(d.point)
}

// An endpoint is one side's DMB and bell before it knows its peer.
type endpoint struct {
	own   *dmb.Registered
	bell  *dmb.Bell
	epoch uint64
}

func (d *daemon) newEndpoint(size int) (endpoint, error) {
	e := endpoint{epoch: d.process.Block().Epoch()}
	var err error
	if e.own, err = dmb.Register(d.dev, size, nil); err != nil {
		return e, err
	}
	e.bell, err = dmb.OpenBell(d.dev, e.own.Token())
	return e, err
}

// join makes the endpoint a connection to a peer's DMB.
func (d *daemon) join(e endpoint, token dmb.Token, size int, tcp *net.TCPConn) (*Conn, error) {
	return d.joinWith(e, token, size, tcp, Link{})
}

// joinWith does so with what the link has already.
func (d *daemon) joinWith(e endpoint, token dmb.Token, size int, tcp *net.TCPConn, l Link) (*Conn, error) {
	var err error
	if l.Peer, err = dmb.Attach(d.dev, token, size); err != nil {
		return nil, err
	}
	if l.PeerBell, err = dmb.OpenBell(d.dev, token); err != nil {
		return nil, err
	}
	l.Own, l.OwnBell, l.TCP, l.Process, l.Epoch = e.own, e.bell, tcp, d.process, e.epoch
	return watched(l)
}

// pair returns the two ends of a connection, in this process, with DMBs of the given size.
func (d *daemon) pair(size int) (c1, c2 *Conn, err error) {
	t1, t2, err := tcpPair()
	if err != nil {
		return nil, nil, err
	}
	e1, err := d.newEndpoint(size)
	if err != nil {
		return nil, nil, err
	}
	e2, err := d.newEndpoint(size)
	if err != nil {
		return nil, nil, err
	}
	if c1, err = d.join(e1, e2.own.Token(), size, t1); err != nil {
		return nil, nil, err
	}
	c2, err = d.join(e2, e1.own.Token(), size, t2)
	return c1, c2, err
}

func (d *daemon) mustPair(t testing.TB, size int) (c1, c2 *Conn) {
	t.Helper()
	c1, c2, err := d.pair(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c1.Close(); c2.Close() })
	return c1, c2
}

func tcpPair() (a, b *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	s, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	return c.(*net.TCPConn), s.(*net.TCPConn), nil
}

// watched makes a connection, and watches it as a handshake's goroutine does.
func watched(l Link) (*Conn, error) {
	c, err := New(l)
	if err == nil {
		go c.Watch()
	}
	return c, err
}

// answer gives messages of n bytes back until the connection ends.
func answer(c *Conn, n int) {
	for p := make([]byte, n); ; {
		if _, err := io.ReadFull(c, p); err != nil {
			return
		}
		c.Write(p)
	}
}
