// SPDX-License-Identifier: Apache-2.0

//go:build linux

package libsmc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/bpf/bpftest"
	"github.com/ismfs/ismfs/libsmc"
	"github.com/ismfs/ismfs/tree"
)

// Here both ends of a connection are in one process, which no program would do: package tests has the black-box tests, with a
// process for each end. The daemon is one of its own in any case: a daemon must not use its own mount.

// patience is how long a test waits for what must come. It is a limit for broken code, not a measure: raise it freely.
const patience = 20 * time.Second

// The daemon, started when a test first asks for it. A process uses one device, so it is for all tests.
var daemon struct {
	once  sync.Once
	dir   string
	cmd   *exec.Cmd
	log   bytes.Buffer
	dev   *tree.Device
	ueids []string
	err   error
}

func TestMain(m *testing.M) {
	if missing() == nil {
		if err := bpftest.Share(); err != nil {
			fmt.Fprintln(os.Stderr, "libsmc:", err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if daemon.cmd != nil && daemon.cmd.Process != nil {
		for syscall.Unmount(filepath.Join(daemon.dir, "mount"), syscall.MNT_DETACH) == nil {
		}
		daemon.cmd.Process.Signal(syscall.SIGTERM)
		daemon.cmd.Wait()
	}
	if daemon.dir != "" {
		os.RemoveAll(daemon.dir)
	}
	os.Exit(code)
}

// device returns the device, with its knobs as they are at a mount. Without the means to mount the test is skipped, but not
// in CI.
func device(t testing.TB) *tree.Device {
	t.Helper()
	if err := missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must have it: ", err)
		}
		t.Skip(err)
	}
	daemon.once.Do(func() { daemon.err = start() })
	if daemon.err != nil {
		t.Fatalf("the daemon: %v\n%s", daemon.err, &daemon.log)
	}
	return daemon.dev
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

func start() error {
	var err error
	if daemon.dir, err = os.MkdirTemp("", "ismfs-libsmc-"); err != nil {
		return err
	}
	command := filepath.Join(os.Getenv("ISMFS_TEST_BIN"), "ismfs")
	if os.Getenv("ISMFS_TEST_BIN") == "" {
		command = filepath.Join(daemon.dir, "ismfs")
		if out, err := exec.Command("go", "build", "-o", command, "../cmd/ismfs").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	point := filepath.Join(daemon.dir, "mount")
	if err := os.Mkdir(point, 0o755); err != nil {
		return err
	}
	os.Setenv(tree.EnvMount, point) // libsmc looks there when it first looks
	daemon.cmd = exec.Command(command, "mount", "--foreground", point)
	daemon.cmd.Stderr = &daemon.log
	daemon.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if daemon.dev, err = tree.Find(point); err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	daemon.ueids, err = daemon.dev.UEIDs()
	return err
}

// A way is what a pair of connections is to be.
type way struct {
	name    string
	mode    libsmc.Mode
	copy    tree.DMBCopy
	address string
	wait    libsmc.Wait
}

func ways() (all []way) {
	for _, a := range []struct{ name, address string }{{"IPv4", "127.0.0.1:0"}, {"IPv6", "[::1]:0"}} {
		all = append(all,
			way{"merged, " + a.name, libsmc.SMCD, tree.Merged, a.address, libsmc.WaitDefault},
			way{"copied, " + a.name, libsmc.SMCD, tree.Separated, a.address, libsmc.WaitDefault},
			way{"TCP, " + a.name, libsmc.TCP, tree.Merged, a.address, libsmc.WaitDefault},
		)
	}
	return all
}

// set turns the knobs, and back when the test ends: without EIDs every connection falls back.
func (w way) set(t *testing.T) {
	t.Helper()
	d := device(t)
	if l, err := net.Listen("tcp", w.address); err != nil {
		t.Skip(err)
	} else {
		l.Close()
	}
	if err := d.SetDMBCopy(w.copy); err != nil {
		t.Fatal(err)
	}
	write := func(sign string) {
		for _, name := range daemon.ueids {
			path := filepath.Join(d.Point(), "devices/loopback-ism/ueid")
			if err := os.WriteFile(path, []byte(sign+name+"\n"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		libsmc.CloseIdle()
		d.SetDMBCopy(tree.Merged)
	})
	if w.mode == libsmc.TCP {
		write("-")
		t.Cleanup(func() { write("+") })
	}
}

// pair returns both ends of a connection, the client's first, settled and of the right kind.
func (w way) pair() (a, b *libsmc.Conn, err error) {
	l, err := (&libsmc.ListenConfig{Wait: w.wait}).Listen(context.Background(), "tcp", w.address)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	client, err := (&libsmc.Dialer{Wait: w.wait}).Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	server, err := l.Accept()
	if err != nil {
		return nil, nil, err
	}
	a, b = client.(*libsmc.Conn), server.(*libsmc.Conn)
	if err := a.Handshake(context.Background()); err != nil {
		return nil, nil, err
	}
	i, k := a.Info(), b.Info()
	switch {
	case i.Mode != w.mode || k.Mode != w.mode:
		err = fmt.Errorf("modes %v and %v, want %v: %+v, %+v", i.Mode, k.Mode, w.mode, i, k)
	case i.Token != k.PeerToken || k.Token != i.PeerToken:
		err = fmt.Errorf("tokens %v, %v and %v, %v", i.Token, i.PeerToken, k.Token, k.PeerToken)
	case w.mode == libsmc.SMCD && i.Copied != (w.copy == tree.Separated):
		err = fmt.Errorf("copied is %v", i.Copied)
	}
	return a, b, err
}

// held is what a process has of the things that can leak.
type held struct{ descriptors, mappings, dmbs int }

func holds(t *testing.T) held {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	n, err := device(t).DMBsCount()
	if err != nil {
		t.Fatal(err)
	}
	return held{len(fds), strings.Count(string(maps), "loopback-ism"), int(n)}
}

// acceptAll accepts and closes until the listener ends, which closes done. look, unless nil, sees each connection first.
func acceptAll(l net.Listener, look func(net.Conn)) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if look != nil {
				look(c)
			}
			c.Close()
		}
	}()
	return done
}
