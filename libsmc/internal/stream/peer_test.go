// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/tree"
)

// The peer process is this test binary again. peerVariable says what it does, where the device is, whom to call and for how
// long: "ROLE MOUNT ADDRESS DURATION".
const peerVariable = "ISMFS_STREAM_PEER"

// Roles of both processes.
const (
	roleExchange = "exchange" // send random bytes in random pieces and check those that come
	roleEcho     = "echo"     // one byte back and forth, after pauses of all lengths
	roleSilent   = "silent"   // write some bytes, then do nothing
)

func runPeer(spec string) {
	if err := peerMain(strings.Fields(spec)); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func peerMain(args []string) error {
	dev, err := tree.Find(args[1])
	if err != nil {
		return err
	}
	b, err := dmb.OpenBlock(dev, 4096)
	if err != nil {
		return err
	}
	d := &daemon{dev: dev, process: NewProcess(b)}
	tcp, err := net.Dial("tcp", args[2])
	if err != nil {
		return err
	}
	lasts, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	c, err := d.handshake(tcp.(*net.TCPConn), ringSize)
	if err != nil {
		return err
	}
	defer c.Close()
	switch args[0] {
	case roleExchange:
		sent, received, err := exchange(c, 2, 1, lasts)
		fmt.Println(sent, received)
		return err
	case roleEcho:
		return echo(c)
	}
	c.Write([]byte("silent"))
	select {}
}

// handshake tells the other process the token and the size, and hears its own: what CLC is for.
func (d *daemon) handshake(tcp *net.TCPConn, size int) (*Conn, error) {
	e, err := d.newEndpoint(size)
	if err != nil {
		return nil, err
	}
	var mine, theirs [16]byte
	binary.BigEndian.PutUint64(mine[:], uint64(e.own.Token()))
	binary.BigEndian.PutUint64(mine[8:], uint64(size))
	if _, err := tcp.Write(mine[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(tcp, theirs[:]); err != nil {
		return nil, err
	}
	return d.join(e, dmb.Token(binary.BigEndian.Uint64(theirs[:])), int(binary.BigEndian.Uint64(theirs[8:])), tcp)
}

// startPeer starts a peer process and returns the connection to it. What it prints goes into a *bytes.Buffer.
func (d *daemon) startPeer(t *testing.T, role string, lasts time.Duration, size int) (*Conn, *exec.Cmd) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %v", peerVariable, role, d.dev.Point(), l.Addr(), lasts))
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	tcp, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.handshake(tcp.(*net.TCPConn), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, cmd
}

// exchange sends the bytes of one seed for some time and checks that those of another come, both in pieces of random sizes.
func exchange(c *Conn, sends, receives uint64, lasts time.Duration) (sent, received int, err error) {
	var sending error
	done := make(chan struct{})
	go func() {
		sent, sending = sendRandom(c, sends, lasts)
		close(done)
	}()
	received, err = receiveRandom(c, receives)
	<-done
	return sent, received, errors.Join(err, sending)
}

func source(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// pieceSize is small more often than large.
func pieceSize() int { return 1 + rand.IntN(1<<rand.IntN(18)) }

func sendRandom(c *Conn, seed uint64, lasts time.Duration) (total int, err error) {
	src := source(seed)
	buf := make([]byte, 1<<18)
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		p := buf[:pieceSize()]
		src.Read(p)
		n, err := c.Write(p)
		total += n
		if err != nil {
			return total, fmt.Errorf("sending: %w", err)
		}
	}
	return total, c.CloseWrite()
}

func receiveRandom(c *Conn, seed uint64) (total int, err error) {
	src := source(seed)
	got, want := make([]byte, 1<<18), make([]byte, 1<<18)
	for {
		n, err := c.Read(got[:pieceSize()])
		src.Read(want[:n])
		if !bytes.Equal(got[:n], want[:n]) {
			return total, fmt.Errorf("wrong bytes between %d and %d", total, total+n)
		}
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("receiving after %d bytes: %w", total, err)
		}
	}
}

// echo sends each byte back, sometimes after a pause, until the other side ends.
func echo(c *Conn) error {
	b := make([]byte, 1)
	for {
		if _, err := c.Read(b); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		dawdle()
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

// dawdle pauses for about as long as the other side spins, or not at all, so that news come at every point of going to sleep.
// Now and then it outlasts a sleep on the futex.
func dawdle() {
	switch n := rand.IntN(2000); {
	case n == 0:
		time.Sleep(futexTime + time.Duration(rand.IntN(200)-100)*time.Microsecond)
	case n < 1000:
		for end := time.Now().Add(time.Duration(rand.IntN(40)) * time.Microsecond); time.Now().Before(end); {
		}
	}
}

// soak is how long a stress lasts: ISMFS_SOAK, or a moment.
func soak(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("ISMFS_SOAK")
	if text == "" {
		return time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTwoProcessesExchange(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		for _, size := range []int{4096, 64 << 10} {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				before, err := d.dev.XferBytes()
				if err != nil {
					t.Fatal(err)
				}
				c, cmd := d.startPeer(t, roleExchange, soak(t), size)
				sent, received, err := exchange(c, 1, 2, soak(t))
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				if err := cmd.Wait(); err != nil {
					t.Fatal(err)
				}
				if got := cmd.Stdout.(*bytes.Buffer).String(); got != fmt.Sprintln(received, sent) {
					t.Errorf("sent %d, received %d; the peer sent and received %s", sent, received, got)
				}
				after, err := d.dev.XferBytes()
				if err != nil || after-before != uint64(sent+received) {
					t.Errorf("xfer_bytes grew by %d, %v; want %d", after-before, err, sent+received)
				}
			})
		}
	})
}

// TestNoWakeUpIsLost plays one byte back and forth. A lost wake-up ends in the deadline.
func TestNoWakeUpIsLost(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c, _ := d.startPeer(t, roleEcho, 0, ringSize)
		b := make([]byte, 1)
		rounds := 0
		for end := time.Now().Add(soak(t)); time.Now().Before(end); rounds++ {
			c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write(b); err != nil {
				t.Fatalf("round %d: %v", rounds, err)
			}
			dawdle()
			if _, err := c.Read(b); err != nil {
				t.Fatalf("round %d: %v", rounds, err)
			}
		}
		t.Logf("%d rounds", rounds)
	})
}

// A peer that is killed ends the connection as TCP would.
func TestPeerIsKilled(t *testing.T) {
	inModes(t, func(t *testing.T, d *daemon) {
		c, cmd := d.startPeer(t, roleSilent, 0, ringSize)
		mustRead(t, c, []byte("sil"))
		mustWrite(t, c, []byte("unread"))
		errs := make(chan error, 1)
		go func() { _, err := c.Write(make([]byte, 1<<20)); errs <- err }()
		time.Sleep(10 * time.Millisecond)
		cmd.Process.Kill()
		if err := <-errs; !isReset(err) {
			t.Errorf("Write: %v", err)
		}
		mustRead(t, c, []byte("ent")) // what it wrote before comes first
		if _, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("Read: %v", err)
		}
	})
}
