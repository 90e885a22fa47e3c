// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tree_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/tree"
	"github.com/ismfs/ismfs/tree/treetest"
)

func fakeDevice(t *testing.T, changed map[string]string) *tree.Device {
	t.Helper()
	d, err := tree.Find(treetest.New(t, changed))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// anyValue makes a method that returns a value of its own type one that a table can hold.
func anyValue[T any](get func(*tree.Device) (T, error)) func(*tree.Device) (any, error) {
	return func(d *tree.Device) (any, error) { return get(d) }
}

var (
	gid        = anyValue((*tree.Device).GID)
	chid       = anyValue((*tree.Device).CHID)
	active     = anyValue((*tree.Device).Active)
	dmbType    = anyValue((*tree.Device).DMBType)
	dmbCopy    = anyValue((*tree.Device).DMBCopy)
	xferBytes  = anyValue((*tree.Device).XferBytes)
	dmbsCount  = anyValue((*tree.Device).DMBsCount)
	ueids      = anyValue((*tree.Device).UEIDs)
	conns      = anyValue((*tree.Device).Conns)
	linkGroups = anyValue((*tree.Device).LinkGroups)
	stats      = anyValue((*tree.Device).Stats)
)

const connLines = "ACTIVE 1000 4711 4026531840 127.0.0.1:48630 127.0.0.1:7777 SMCD - 4645ce4798b5ef0b ab8ece266549dd22 00000100 " +
	"0001:00000002 0000:0000000e 80:40 0003:00000004 0005:00000006 00:00 client 129 R-> 65504 65504 131040 21 77 later\n" +
	"ACTIVE 0 12 - [2001:db8::1]:1 [2001:db8::2]:80 TCP 0x05000000/0x03030008 - - - - - - - - - server 0 <-> 0 0 0 0 7\n" +
	"LISTEN 0 12 1 [::]:80 - LISTEN - - - - - - - - - - - 1326 <-> 0 0 0 0 7\n"

var connsWanted = []tree.Conn{
	{State: "ACTIVE", UID: 1000, PID: 4711, NetNS: 4026531840, Local: netip.MustParseAddrPort("127.0.0.1:48630"),
		Peer: netip.MustParseAddrPort("127.0.0.1:7777"), Mode: tree.ModeSMCD, Token: "4645ce4798b5ef0b", PeerToken: "ab8ece266549dd22",
		LinkID: 0x100, Role: "client", Inode: 129, Shutdown: "R->", Sndbuf: 65504, Rcvbuf: 65504, Peerbuf: 131040, Number: 21, ProcessID: 77,
		RX: &tree.Header{Producer: tree.Cursor{Wrap: 1, Count: 2}, Consumer: tree.Cursor{Count: 14}, ProducerFlags: 0x80, StateFlags: 0x40},
		TX: &tree.Header{Producer: tree.Cursor{Wrap: 3, Count: 4}, Consumer: tree.Cursor{Wrap: 5, Count: 6}}},
	{State: "ACTIVE", PID: 12, Local: netip.MustParseAddrPort("[2001:db8::1]:1"), Peer: netip.MustParseAddrPort("[2001:db8::2]:80"),
		Mode: tree.ModeTCP, Reason: 0x05000000, PeerDiagnosis: 0x03030008, Role: "server", Shutdown: "<->", ProcessID: 7},
	{State: "LISTEN", PID: 12, NetNS: 1, Local: netip.MustParseAddrPort("[::]:80"), Mode: tree.ModeListen, Role: "-", Inode: 1326,
		Shutdown: "<->", ProcessID: 7},
}

const groupLines = "00000100 client 4 1000 4711 77 4712 78 2 1 2 host SMCV2-ANCHOR-UEID.01 0 0 262144 later\n" +
	"00000200 server 0 0 1 2 - - 2 1 2 - - 0 0 0\n"

var groupsWanted = []tree.LinkGroup{
	{ID: 0x100, Role: "client", Conns: 4, UID: 1000, PID: 4711, ProcessID: 77, PeerPID: 4712, PeerID: 78, Version: 2, Release: 1, PeerOS: 2,
		PeerHost: "host", EID: "SMCV2-ANCHOR-UEID.01", DMBBytes: 262144},
	{ID: 0x200, Role: "server", PID: 1, ProcessID: 2, Version: 2, Release: 1, PeerOS: 2},
}

func TestDeviceReads(t *testing.T) {
	for _, c := range []struct {
		file, text string
		get        func(*tree.Device) (any, error)
		want       any
	}{
		{"gid", treetest.GID + "\n", gid, treetest.GID},
		{"chid", "ffff\n", chid, uint16(0xffff)},
		{"active", "1\n", active, tree.Active},
		{"active", "0\n", active, tree.Inactive},
		{"active", "drain\n", active, tree.Draining},
		{"dmb_type", "0: Physically contiguous buffer\n", dmbType, tree.PhysContiguous},
		{"dmb_type", "1: Virtually contiguous buffer\n", dmbType, tree.VirtContiguous},
		{"dmb_copy", "0: sndbuf and DMB merged and no data copied\n", dmbCopy, tree.Merged},
		{"dmb_copy", "1: sndbuf and DMB separated and data copied\n", dmbCopy, tree.Separated},
		{"xfer_bytes", "18446744073709551615\n", xferBytes, uint64(1<<64 - 1)},
		{"dmbs_cnt", "7\n", dmbsCount, uint64(7)},
		{"ueid", "", ueids, []string(nil)},
		{"ueid", "A\nB.2                             \n", ueids, []string{"A", "B.2"}},
		{"conns", "", conns, []tree.Conn{}},
		{"conns", connLines, conns, connsWanted},
		{"linkgroups", "", linkGroups, []tree.LinkGroup{}},
		{"linkgroups", groupLines, linkGroups, groupsWanted},
	} {
		d := fakeDevice(t, map[string]string{c.file: c.text})
		got, err := c.get(d)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s holding %q reads as %#v, %v; want %#v", c.file, c.text, got, err, c.want)
		}
	}
}

func TestDeviceReadsNonsense(t *testing.T) {
	for _, c := range []struct {
		file, text string
		get        func(*tree.Device) (any, error)
	}{
		{"chid", "10000\n", chid},
		{"active", "2\n", active},
		{"dmb_type", "2: Unknown type\n", dmbType},
		{"dmb_type", "", dmbType},
		{"dmb_copy", "01: \n", dmbCopy},
		{"xfer_bytes", "-1\n", xferBytes},
		{"dmbs_cnt", "\n", dmbsCount},
		{"conns", "ACTIVE 0 1 2\n", conns},
		{"conns", strings.Replace(connLines, "127.0.0.1", "localhost", 1), conns},
		{"conns", strings.Replace(connLines, "0001:00000002", "000100000002", 1), conns},
		{"conns", strings.Replace(connLines, "80:40", "80:140", 1), conns},
		{"linkgroups", "00000100 client x\n", linkGroups},
		{"stats", "", stats},
		{"stats", `{"device": 1}`, stats},
	} {
		d := fakeDevice(t, map[string]string{c.file: c.text})
		got, err := c.get(d)
		if err == nil || !strings.Contains(err.Error(), filepath.Join(d.Dir(), c.file)) {
			t.Errorf("%s holding %q reads as %v, error %v; want an error that names the file", c.file, c.text, got, err)
		}
	}
}

func TestDeviceWrites(t *testing.T) {
	for _, c := range []struct {
		file string
		set  func(*tree.Device) error
		want string
	}{
		{"active", func(d *tree.Device) error { return d.SetActive(tree.Draining) }, "drain\n"},
		{"active", func(d *tree.Device) error { return d.SetActive(tree.Inactive) }, "0\n"},
		{"dmb_type", func(d *tree.Device) error { return d.SetDMBType(tree.VirtContiguous) }, "1\n"},
		{"dmb_copy", func(d *tree.Device) error { return d.SetDMBCopy(tree.Separated) }, "1\n"},
		{"ueid", func(d *tree.Device) error { return d.AddUEID("SITE-A") }, "+SITE-A\n"},
		{"ueid", func(d *tree.Device) error { return d.DelUEID("SITE-A") }, "-SITE-A\n"},
	} {
		d := fakeDevice(t, nil)
		if err := c.set(d); err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		got, err := os.ReadFile(filepath.Join(d.Dir(), c.file))
		if err != nil || string(got) != c.want {
			t.Errorf("%s got %q, %v; want %q", c.file, got, err, c.want)
		}
	}
}

func TestDeviceWriteMakesNoFile(t *testing.T) {
	d := fakeDevice(t, nil)
	if err := os.Remove(filepath.Join(d.Dir(), "active")); err != nil {
		t.Fatal(err)
	}
	err := d.SetActive(tree.Active)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `value "1"`) {
		t.Errorf("error %v", err)
	}
}

func TestDMBs(t *testing.T) {
	d := fakeDevice(t, nil)
	want := []string{"0123456789abcdef", "fedcba9876543210"}
	for _, token := range want {
		if err := os.WriteFile(filepath.Join(d.Dir(), "dmbs", token), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.DMBs(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("DMBs() = %v, %v; want %v", got, err, want)
	}
}

func TestProcessID(t *testing.T) {
	for target, want := range map[string]uint32{"4711": 4711, "4294967296": 0, "self": 0} {
		d := fakeDevice(t, nil)
		if err := os.Symlink(target, filepath.Join(d.Dir(), "procs/self")); err != nil {
			t.Fatal(err)
		}
		got, err := d.ProcessID()
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("procs/self -> %s: %d, %v; want %d", target, got, err, want)
		}
		if want == 0 && !errors.Is(err, strconv.ErrRange) && !errors.Is(err, strconv.ErrSyntax) {
			t.Errorf("procs/self -> %s: error %v", target, err)
		}
	}
}

func TestStats(t *testing.T) {
	d := fakeDevice(t, map[string]string{"stats": `{
		"SMCD": {"SMC_TX_BYTES": 18446744073709551615},
		"handshake": {"client_errors": 1, "server_errors": 2, "client_fallback": {"PEERDECL": 3}, "server_fallback": {}},
		"device": {"version": "1.0", "pid": 12, "uptime_seconds": 3, "state": "draining", "epoch": 2, "max_dmbs": 10,
			"max_dmb_size": 4096, "max_bytes": 5, "max_bytes_per_uid": 4, "max_dmbs_per_uid": 3, "dmbs": 2, "bytes": 1,
			 "liars": [{"id": 7, "pid": 8, "uid": 1000, "why": "counters ran backwards"}], "later": 1}
	}`})
	want := tree.Stats{
		SMCD: map[string]uint64{"SMC_TX_BYTES": 1<<64 - 1},
		Handshake: tree.Handshake{ClientErrors: 1, ServerErrors: 2, ClientFallback: map[string]uint64{"PEERDECL": 3},
			ServerFallback: map[string]uint64{}},
		Device: tree.DeviceStats{Version: "1.0", PID: 12, UptimeSeconds: 3, State: "draining", Epoch: 2, MaxDMBs: 10,
			MaxDMBSize: 4096, MaxBytes: 5, MaxBytesPerUID: 4, MaxDMBsPerUID: 3, DMBs: 2, Bytes: 1,
			Liars: []tree.Liar{{ID: 7, PID: 8, UID: 1000, Why: "counters ran backwards"}}},
	}
	if got, err := d.Stats(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}
