// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

var localhost = netip.MustParseAddr("127.0.0.1")

// TestOptionComesAndGoes: the programs are there as long as the device is, and nothing of them stays, whichever way it ends.
func TestOptionComesAndGoes(t *testing.T) {
	alone(t)
	for name, end := range map[string]func(d *device, tag smcopt.Tag){
		"umount":         func(d *device, _ smcopt.Tag) { command(t, "ismfs", "umount", d.Point).want(t, 0) },
		"umount --force": func(d *device, _ smcopt.Tag) { command(t, "ismfs", "umount", "--force", d.Point).want(t, 0) },
		"umount(2)":      func(d *device, _ smcopt.Tag) { unix.Unmount(d.Point, unix.MNT_DETACH) },
		"SIGTERM":        func(d *device, _ smcopt.Tag) { d.Signal(syscall.SIGTERM) },
		"two signals": func(d *device, tag smcopt.Tag) {
			c := startClient(t)
			c.Register(d, "00000000000b0f01", 4096)
			d.Signal(syscall.SIGTERM)
			waitFor(t, "the tag to go", func() error {
				if err := markFresh(tag); !errors.Is(err, smcopt.ErrNoDevice) {
					return errors.New("the first signal has not withdrawn it")
				}
				return nil
			})
			d.Signal(syscall.SIGTERM)
		},
		"killed": func(d *device, tag smcopt.Tag) {
			d.Kill()
			wantDevices(t, tag) // they stay until told otherwise
			command(t, "ismfs", "umount", d.Point).want(t, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := mountDevice(t)
			tag := d.Tag()
			wantDevices(t, tag)
			startClient(t).wantPair(localhost, tag, toldSMC)
			if !infoOf(t, d.Point).Sockets {
				t.Error("ismfs info says that sockets are not covered")
			}
			end(d, tag)
			d.WaitEnd()
			wantNoPrograms(t)
		})
	}
}

type infoJSON struct {
	Point   string `json:"mount_point"`
	Sockets bool
}

func infoOf(t *testing.T, point string) infoJSON {
	t.Helper()
	var infos []infoJSON
	if err := json.Unmarshal([]byte(command(t, "ismfs", "info", "--json").Stdout), &infos); err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.Point == point {
			return i
		}
	}
	t.Fatalf("ismfs info does not list %s: %+v", point, infos)
	return infoJSON{}
}

// TestOptionOfTwoDevices: they share the set, and each has a tag of its own.
func TestOptionOfTwoDevices(t *testing.T) {
	alone(t)
	one, two := mountDevice(t), mountDevice(t)
	first, second := one.Tag(), two.Tag()
	wantDevices(t, first, second)
	c := startClient(t)
	c.wantPair(localhost, first, toldSMC)
	c.wantPair(localhost, second, toldSMC)
	command(t, "ismfs", "umount", one.Point).want(t, 0)
	one.WaitEnd()
	wantDevices(t, second)
	if err := markFresh(first); !errors.Is(err, smcopt.ErrNoDevice) {
		t.Errorf("a mark for a device that has ended: %v", err)
	}
	c.wantPair(localhost, second, toldSMC)
	if findings := command(t, "ismfs", "doctor").Stdout; !strings.Contains(findings, second.String()) {
		t.Errorf("ismfs doctor does not name the device's tag %v:\n%s", second, findings)
	}
	command(t, "ismfs", "umount", two.Point).want(t, 0)
	two.WaitEnd()
	wantNoPrograms(t)
}

// TestSmcopt is the Go package for the socket option under Go's net.
func TestSmcopt(t *testing.T) {
	d := mountSMC(t)
	tag := d.Tag()
	control := func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) { err = smcopt.Mark(int(fd), tag) })
		return errors.Join(e, err)
	}
	lc := net.ListenConfig{Control: control}
	dialer := net.Dialer{Control: control}
	lc.SetMultipathTCP(false)
	dialer.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := dialer.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	on := func(c any, f func(fd int) error) (err error) {
		raw, e := c.(syscall.Conn).SyscallConn()
		if e != nil {
			return e
		}
		e = raw.Control(func(fd uintptr) { err = f(int(fd)) })
		return errors.Join(e, err)
	}
	wantAsk := func(c any, want smcopt.Answer) {
		t.Helper()
		err := on(c, func(fd int) error {
			if a, err := smcopt.Ask(fd); err != nil || a != want {
				t.Errorf("%v %v (%v), want %v", a.State, a.Tag, err, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	wantAsk(c, smcopt.Answer{State: smcopt.SMC, Tag: tag})
	wantAsk(s, smcopt.Answer{State: smcopt.SMC, Tag: tag})
	wantAsk(l, smcopt.Answer{State: smcopt.Listener, Tag: tag})
	if err := on(l, smcopt.Unmark); err != nil {
		t.Error(err)
	}
	if err := on(l, func(fd int) error { _, err := smcopt.Ask(fd); return err }); !errors.Is(err, smcopt.ErrNotMarked) {
		t.Errorf("an un-marked listener: %v", err)
	}
	if err := on(l, func(fd int) error { return smcopt.Mark(fd, smcopt.Tag{9}) }); !errors.Is(err, smcopt.ErrNoDevice) {
		t.Errorf("an unknown tag: %v", err)
	}
	if err := on(c, func(fd int) error { return smcopt.Mark(fd, tag) }); !errors.Is(err, unix.EISCONN) {
		t.Errorf("a connected socket: %v", err)
	}
}

// TestOptionForEverybody: a daemon on the host covers whoever is on it.
func TestOptionForEverybody(t *testing.T) {
	d := mountSMC(t)
	tag := d.Tag()
	for name, change := range map[string]func(*exec.Cmd){
		"root":              func(*exec.Cmd) {},
		"an ordinary user":  asUser(1000),
		"network namespace": inNamespaces(unix.CLONE_NEWNET),
		"container": inNamespaces(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP),
	} {
		t.Run(name, func(t *testing.T) {
			c := startClient(t, change)
			if c.cmd.SysProcAttr.Cloneflags&unix.CLONE_NEWNET != 0 {
				pid := strconv.Itoa(c.PID())
				execute(t, nil, "nsenter", "-n", "-t", pid, "ip", "link", "set", "lo", "up").want(t, 0)
			}
			if name == "container" {
				enterNewCgroup(t, c.PID())
			}
			c.wantPair(localhost, tag, toldSMC)
			if fileExists("/proc/net/if_inet6") {
				c.wantPair(netip.IPv6Loopback(), tag, toldSMC)
			}
		})
	}
}

// enterNewCgroup moves a process into a cgroup of its own.
func enterNewCgroup(t *testing.T, pid int) {
	t.Helper()
	root := strings.TrimSpace(execute(t, nil, "findmnt", "-n", "-f", "-o", "TARGET", "-t", "cgroup2").Stdout)
	dir, err := os.MkdirTemp(root, "ismfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killPID(t, pid)
		waitFor(t, "the cgroup to be empty", func() error { return os.Remove(dir) })
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// TestOptionDrained: neither "drain" nor 0 takes the option away, since those who have it are told no by a Decline. SIGTERM
// does, while what is open holds the daemon up.
func TestOptionDrained(t *testing.T) {
	d := mountSMC(t)
	tag := d.Tag()
	c := startClient(t)
	c.Register(d, "00000000000b0f02", 4096)
	for _, state := range []string{"drain", "1", "0", "1"} {
		if err := d.Write("active", state); err != nil {
			t.Fatal(err)
		}
		c.wantPair(localhost, tag, toldSMC)
	}
	c.Kill()
	c = startClient(t)
	c.Register(d, "00000000000b0f03", 4096)
	l, at, err := listenBare(localhost)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	s, err := newBare(localhost)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := errors.Join(smcopt.Mark(l.fd, tag), smcopt.Mark(s.fd, tag)); err != nil {
		t.Fatal(err)
	}
	d.Signal(syscall.SIGTERM)
	waitFor(t, "the tag to go", func() error {
		if err := markFresh(tag); !errors.Is(err, smcopt.ErrNoDevice) {
			return errors.New("it can still be used")
		}
		return nil
	})
	if !isMounted(t, d.Point) {
		t.Fatal("the tree is gone, though a DMB is open")
	}
	if err := s.connect(at); err != nil {
		t.Fatal(err)
	}
	server, err := l.accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.close()
	if a, b := s.told(true), server.toldServer(true); a != toldPlain || b != toldPlain {
		t.Errorf("a client that was marked before: %s, its server: %s", a, b)
	}
	c.Kill()
	d.WaitEnd()
}
