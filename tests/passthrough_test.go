// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// requestLine is how --debug logs a request: rx NUMBER: OPERATION nNODE.
var requestLine = regexp.MustCompile(`"?rx \d+: ([A-Z_]+) n(\d+)`)

// requests returns the operations that reached the daemon, as OPERATION and node.
func (d *device) requests() [][2]string {
	var list [][2]string
	for _, m := range requestLine.FindAllStringSubmatch(d.log.String(), -1) {
		list = append(list, [2]string{m[1], m[2]})
	}
	return list
}

// wantNoData fails if the log does not show that DMBs were opened, or shows a READ or WRITE of anything that is no control.
func (d *device) wantNoData(creates, opens int) {
	d.t.Helper()
	seen := make(map[string]int)
	controls := make(map[string]bool) // nodes that are opened without a backing file
	reply := regexp.MustCompile(`rx (\d+): OPEN n(\d+)`)
	text := d.log.String()
	for _, m := range reply.FindAllStringSubmatch(text, -1) {
		answer := regexp.MustCompile(fmt.Sprintf(`tx %s: .*`, m[1])).FindString(text)
		if !regexp.MustCompile(`PASSTHROUGH`).MatchString(answer) {
			controls[m[2]] = true
		}
	}
	for _, r := range d.requests() {
		seen[r[0]]++
		data := []string{"READ", "WRITE", "COPY_FILE_RANGE", "LSEEK", "FALLOCATE", "FSYNC"}
		if slices.Contains(data, r[0]) && !controls[r[1]] {
			d.t.Errorf("a %s of node %s reached the daemon", r[0], r[1])
		}
	}
	if seen["CREATE"] < creates || seen["OPEN"] < opens {
		d.t.Errorf("the log shows %d CREATE and %d OPEN, want at least %d and %d: it proves nothing", seen["CREATE"], seen["OPEN"], creates, opens)
	}
}

// TestNoDataAtTheDaemon moves bytes in every way there is and looks for them in the daemon's log of requests.
func TestNoDataAtTheDaemon(t *testing.T) {
	for _, copied := range []bool{false, true} {
		t.Run(fmt.Sprintf("dmb_copy %v", copied), func(t *testing.T) {
			d := mountDevice(t, "--debug", fmt.Sprintf("--dmb-copy=%d", map[bool]int{true: 1}[copied]))
			l := newLink(t, d, copied)
			const some = 8 << 20
			l.b.StartRing(false, l.bEnd)
			l.a.StartRing(true, l.aEnd)
			l.b.WaitRing(some)
			finish(t, l.a, l.b)
			piece := bytes.Repeat([]byte("piece of 16 byte"), 1024)
			for i := range 64 {
				off := int64(32 + i%2*len(piece))
				if err := l.a.Pwrite(l.aEnd.PeerFD, piece, off); err != nil {
					t.Fatal(err)
				}
				if got, err := l.b.Pread(l.bOwn, len(piece), off); err != nil || !bytes.Equal(got, piece) {
					t.Fatalf("pread: %d bytes, %v", len(got), err)
				}
			}
			d.wantNoData(2, 2)
			// The same check sees the READ of a control: it is no matter of a log that shows none.
			d.Read("gid")
			if !slices.ContainsFunc(d.requests(), func(r [2]string) bool { return r[0] == "READ" }) {
				t.Error("reading a control leaves no READ in the log: it proves nothing")
			}
		})
	}
}

// TestSamePages: two processes and the daemon see one memory at once. The daemon shows what it sees by what it does: it adds 1
// to the sequence that is there, and counts what a block's owner has stored.
func TestSamePages(t *testing.T) {
	d := mountDevice(t)
	owner, peer := startClient(t), startClient(t)
	const token = "00000000000005a1"
	_, own := owner.Register(d, token, 65536)
	peerFD := peer.MustOpen(d.Path("dmbs", token), unix.O_RDWR)
	mapped := peer.MustMap(peerFD, 65536)
	for i := range byte(100) {
		if err := peer.Store(mapped, []byte{i, i + 1}, int64(i)*512+40); err != nil {
			t.Fatal(err)
		}
		if got, err := owner.Load(own, 2, int64(i)*512+40); err != nil || got[0] != i || got[1] != i+1 {
			t.Fatalf("step %d: the owner sees %v, %v", i, got, err)
		}
	}
	if err := owner.Store(own, []byte{0xfe, 0xff, 0xff, 0xff}, offSequence); err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(peerFD); err != nil {
		t.Fatal(err)
	}
	want := owner.Word(own, offSequence) // before or after the daemon's turn
	waitFor(t, "the daemon to count on from what the owner stored", func() error {
		if want = owner.Word(own, offSequence); want&0xff != 0xff {
			return fmt.Errorf("the sequence is %#x", want)
		}
		return nil
	})
	_, block := owner.Block(d)
	const offTxBytes = 544
	if err := owner.Store(block, []byte{0x34, 0x12}, offTxBytes); err != nil {
		t.Fatal(err)
	}
	if n := d.Read("xfer_bytes"); n != "4660" {
		t.Errorf("xfer_bytes is %s", n)
	}
	if _, err := os.Stat(d.Path("dmbs", token)); err != nil {
		t.Error(err)
	}
}
