// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

// TestShutdown: http.Server.Shutdown works over SMC-D as over TCP. The listener closes, a connection between two requests
// ends, and the request that is half sent gets its answer.
func TestShutdown(t *testing.T) {
	point := mountDevice(t, "--force") // this process is a client, and has its procs block open until it exits
	t.Setenv("ISMFS_MOUNT", point)
	server := start(t, point, "http-server", "-listen=127.0.0.1:0")
	address := server.expect("listening on ")

	idle, busy := dialSMC(t, address), dialSMC(t, address)
	idleAnswers, busyAnswers := bufio.NewReader(idle), bufio.NewReader(busy)
	ask(t, idle, idleAnswers, "PUT /idle HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nidle", http.StatusCreated)
	ask(t, busy, busyAnswers, "PUT /busy HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbusy", http.StatusCreated)
	// 100 Continue says that the server is in the request.
	ask(t, busy, busyAnswers, "PUT /half HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n", http.StatusContinue)
	if _, err := io.WriteString(busy, "half"); err != nil {
		t.Fatal(err)
	}

	server.signal(syscall.SIGTERM)
	if _, err := idleAnswers.ReadByte(); err != io.EOF {
		t.Errorf("the connection between two requests: %v; want EOF", err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("the server still listens")
	}
	select {
	case <-server.ended:
		t.Fatal("the server has ended in the middle of a request")
	case <-time.After(100 * time.Millisecond):
	}
	ask(t, busy, busyAnswers, "more", http.StatusCreated)
	if _, err := busyAnswers.ReadByte(); err != io.EOF {
		t.Errorf("after the last answer: %v; want EOF", err)
	}
	server.wait(0)
}

// dialSMC dials, and wants SMC-D.
func dialSMC(t *testing.T, address string) *libsmc.Conn {
	t.Helper()
	d, err := libsmc.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c := d.(*libsmc.Conn)
	c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if i := c.Info(); i.Mode != libsmc.SMCD {
		t.Fatalf("the connection is on %v: %v, %v", i.Mode, i.Reason, i.Cause)
	}
	return c
}

// ask sends text and wants an answer of this status.
func ask(t *testing.T, c net.Conn, answers *bufio.Reader, text string, want int) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != want {
		t.Fatalf("%s: %s; want %d", strings.SplitN(text, "\r", 2)[0], answer.Status, want)
	}
}
