// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/tree"
)

// passedServer is activated by its socket: it forgets the environment, as sd_listen_fds(1) does, echoes, and ends with its input.
const passedServer = `
import os, socket, sys, threading
assert os.environ.pop("LISTEN_FDS") == "1" and int(os.environ.pop("LISTEN_PID")) == os.getpid()
listener = socket.socket(fileno=3)
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
    c.close()
def serve():
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
`

// says sends a word through socat and wants it back.
func (d *device) says(how launch, port string) {
	d.t.Helper()
	if out := d.run(how, "sh", "-c", "echo hello | socat -t 10 - TCP:127.0.0.1:"+port); out != "hello\n" {
		d.t.Errorf("it echoes %q", out)
	}
}

// TestRunPassed: a listener of somebody who knows nothing of SMC is passed to a program under smc_run, as by systemd. Who has connected
// before is on TCP, who comes then in SMC-D mode; and when the program has ended, it is a plain listener again.
func TestRunPassed(t *testing.T) {
	need(t, "python3", "socat")
	d := mountSMC(t)
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	early, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()

	cmd := d.command(asItIs, "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`,
		filepath.Join(bin, "smc_run"), "-d", "python3", "-c", passedServer)
	cmd.ExtraFiles = []*os.File{file}
	says := new(logBuffer)
	cmd.Stderr = says
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.wantPlain(func() {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 5)
		if _, err := early.Write([]byte("early")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(early, answer); err != nil || string(answer) != "early" {
			t.Errorf("%q, %v", answer, err)
		}
	})
	if !strings.Contains(says.String(), "listening on fd 3\n") {
		t.Errorf("smc_run -d says %q", says)
	}
	d.wantGrowth(12, func() { d.wantSMC(1, func() { d.says(underRun, port) }) })
	d.wantPlain(func() { d.says(asItIs, port) })
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server: %v", err)
	}

	if err := syscall.SetNonblock(int(file.Fd()), true); err != nil { // Fd has made it block
		t.Fatal(err)
	}
	go func() { // whoever has passed it serves itself
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			io.Copy(c, c)
			c.Close()
		}
	}()
	d.wantPlain(func() { d.says(underRun, port) })
	d.WantCount(0)
}

// TestRunLateDevice: a device that is mounted when a program listens already is found when it next accepts.
func TestRunLateDevice(t *testing.T) {
	need(t, "python3", "socat")
	d := mountSMC(t)
	point, port := tempDir(t), freePort(t)
	server := d.start(underRun, "env", "ISMFS_MOUNT="+point, "python3", "-c", echoServer, port)
	listening(t, port)
	d.says(asItIs, port)
	late := mountDeviceOn(t, point)
	waitFor(t, "a connection over the device", func() error {
		late.says(underRun, port)
		if n := late.smcCounts(); n.clients == 0 || n.servers == 0 {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	late.wantSMC(1, func() { late.says(underRun, port) })
	found := false
	conns, err := late.tree().Conns()
	for _, c := range conns {
		found = found || c.Mode == tree.ModeListen && strconv.Itoa(int(c.Local.Port())) == port
	}
	if !found || err != nil {
		t.Errorf("the listener is not in conns: %v, %v", conns, err)
	}
	server.kill()
	late.WantCount(0)
}
