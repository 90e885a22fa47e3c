// SPDX-License-Identifier: Apache-2.0

//go:build linux

package libsmc_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/libsmc"
)

// within ends the test if a call takes longer than anybody would wait, but less than the handshake's own 6 seconds. giveUp
// ends the call then.
func within(t *testing.T, what string, call, giveUp func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		giveUp()
		<-done
		t.Fatalf("%s takes longer than 5 s", what)
	}
}

// TestListenerCloseEndsHandshakes: Close of a listener does not wait for clients, wherever their handshakes are.
func TestListenerCloseEndsHandshakes(t *testing.T) {
	ways()[0].set(t)
	message := proposal(t)
	for i := range 100 {
		l, err := libsmc.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		accepted := acceptAll(l, nil)
		c, err := (&net.Dialer{Control: mark(t)}).Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Write(message)
		time.Sleep(time.Duration(i) * 20 * time.Microsecond)
		within(t, "Close of a listener", func() { l.Close() }, func() { c.Close() })
		c.Close()
		<-accepted
	}
}

// TestListenerSetDeadline: a deadline that is set while Accept waits does not keep it from a connection that is there.
func TestListenerSetDeadline(t *testing.T) {
	ways()[0].set(t)
	l, err := libsmc.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stop := make(chan struct{})
	stopped := make(chan struct{})
	defer func() {
		close(stop)
		<-stopped
	}()
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				l.(*libsmc.Listener).SetDeadline(time.Time{})
			}
		}
	}()
	for range 50 {
		a, err := libsmc.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		within(t, "Accept", func() {
			b, err := l.Accept()
			if err != nil {
				t.Error("Accept: ", err)
				return
			}
			b.Close()
		}, func() { l.Close() })
		a.Close()
	}
}

// TestListenerFileBesideAccept: File does not wait for a connection because somebody else waits for one.
func TestListenerFileBesideAccept(t *testing.T) {
	ways()[0].set(t)
	for range 50 {
		l, err := libsmc.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		accepted := acceptAll(l, nil)
		within(t, "File", func() {
			f, err := l.(*libsmc.Listener).File()
			if err != nil {
				t.Error("File: ", err)
				return
			}
			f.Close()
		}, func() { l.Close() })
		l.Close()
		<-accepted
	}
}

// TestCloseBesideDecline: a connection that is closed while the peer's Decline arrives is listed nowhere afterwards.
func TestCloseBesideDecline(t *testing.T) {
	ways()[0].set(t)
	config := net.ListenConfig{Control: mark(t)}
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 500 {
		a, err := libsmc.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b.Write(decline())
		for end := time.Now().Add(time.Duration(i%50) * time.Microsecond); time.Now().Before(end); {
		}
		if err := a.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error("Close: ", err)
		}
		b.Close()
	}
	text, err := os.ReadFile(filepath.Join(device(t).Dir(), "conns"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), l.Addr().String()) {
		t.Errorf("conns after all of them were closed:\n%s", text)
	}
}
