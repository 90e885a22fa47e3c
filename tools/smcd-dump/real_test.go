// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/tree/treetest"
)

// The goldens whose names begin with sockets, linkgroup and stats and end with .txt are what smcss and smcd of smc-tools
// 1.8.5 printed on a kernel with loopback-ism: with no connections yet, and with two of them between a server and a client
// of one host, after one that fell back. The trees of these tests say the same of themselves.

const (
	connLines = `ACTIVE 0 10 1 127.0.0.1:7777 127.0.0.1:48630 SMCD - ab8ece266549dd22 4645ce4798b5ef0b 00000100 0000:0000000e 0000:00000000 00:00 0000:0000000e 0000:0000000e 00:00 server 1330 <-> 65504 65504 65504 5 1
ACTIVE 0 11 1 127.0.0.1:48630 127.0.0.1:7777 SMCD - 4645ce4798b5ef0b ab8ece266549dd22 00000100 0000:0000000e 0000:0000000e 00:00 0000:0000000e 0000:0000000e 00:00 client 129 <-> 65504 65504 65504 6 2
ACTIVE 0 10 1 127.0.0.1:7777 127.0.0.1:48620 SMCD - 65b4b22d61c27ca8 02770531ed7b5cdf 00000100 0000:0000000e 0000:00000000 00:00 0000:0000000e 0000:0000000e 00:00 server 1328 <-> 65504 65504 65504 3 1
ACTIVE 0 11 1 127.0.0.1:48620 127.0.0.1:7777 SMCD - 02770531ed7b5cdf 65b4b22d61c27ca8 00000100 0000:0000000e 0000:0000000e 00:00 0000:0000000e 0000:0000000e 00:00 client 125 <-> 65504 65504 65504 4 2
LISTEN 0 10 1 127.0.0.1:7777 - LISTEN - - - - - - - - - - - 1326 <-> 0 0 0 0 1
`
	groupLines = `00000100 client 4 0 11 2 10 1 2 1 2 smcguest SMCV2-ANCHOR-UEID.01 0 0 262144
00000200 server 0 0 10 1 11 2 2 1 2 smcguest SMCV2-ANCHOR-UEID.01 0 0 65536
`
	realStats = `{"SMCD": {"SMC_INT_RX_BUF_64K":6,"SMC_USR_RX_BUF_8K":6,"SMC_USR_TX_BUF_8K":6,"SMC_INT_RX_BUF_REUSE_CNT":1,
		"SMC_CLNT_V2_SUCC_CNT":3,"SMC_SRV_V2_SUCC_CNT":3,"SMC_RX_BYTES":84,"SMC_TX_BYTES":84,"SMC_RX_CNT":7,"SMC_TX_CNT":6,
		"SMC_RX_RMB_USAGE":262144},
		"handshake": {"client_errors":0,"server_errors":0,"client_fallback":{"PEERDECL":1},"server_fallback":{"NOUEID":1}}}`
)

func realTree() map[string]string {
	return map[string]string{
		"gid":   "c34bbf62-5008-fce5-0123-456789abcdef\n",
		"conns": connLines, "linkgroups": groupLines, "stats": realStats,
	}
}

func TestAsTheRealTools(t *testing.T) {
	baselineDir = t.TempDir()
	for _, c := range []struct {
		file string
		tree map[string]string
		args string
	}{
		{"sockets.txt", realTree(), "sockets"},
		{"sockets.txt", realTree(), "sockets --wide"},
		{"sockets-a.txt", realTree(), "sockets -a"},
		{"sockets-D.txt", realTree(), "so -D"},
		{"sockets-d.txt", realTree(), "sockets -d"},
		{"sockets-d.txt", realTree(), "-d sockets"},
		{"linkgroup.txt", realTree(), "linkgroup"},
		{"linkgroup.txt", realTree(), "l s a"},
		{"linkgroup-d.txt", realTree(), "-d linkgroup"},
		{"linkgroup-d.txt", realTree(), "linkgroup show all -d"},
		{"stats.txt", realTree(), "stats"},
		{"stats.txt", realTree(), "-a stats show"},
		{"stats-d.txt", realTree(), "-d stats"},
		{"stats-d.txt", realTree(), "-ad stats"},
		{"stats-d.txt", realTree(), "st sh -da"},
		{"sockets-none.txt", nil, "sockets"},
		{"sockets-none.txt", nil, "sockets -l"},
		{"sockets-none-D.txt", nil, "sockets -D"},
		{"sockets-none-d.txt", nil, "sockets -d"},
		{"linkgroup-none.txt", nil, "linkgroup"},
		{"linkgroup-none.txt", nil, "-d linkgroup"},
		{"stats-none.txt", nil, "stats"},
		{"stats-none-d.txt", nil, "stats -d"},
	} {
		t.Run(c.args+" "+c.file, func(t *testing.T) {
			stdout, stderr, err := run(append([]string{"--mount", treetest.New(t, c.tree)}, strings.Fields(c.args)...)...)
			if err != nil || stderr != "" {
				t.Fatalf("%v, stderr %q", err, stderr)
			}
			want, err := os.ReadFile(filepath.Join("testdata", c.file))
			if err != nil {
				t.Fatal(err)
			}
			if stdout != string(want) {
				t.Errorf("printed\n%s\nwant\n%s", stdout, want)
			}
		})
	}
}

// TestSockets has what the real run did not: other states and modes, long addresses, DMBs that the device does not know.
func TestSockets(t *testing.T) {
	const lines = `INIT 1000 10 1 10.0.0.1:1 10.0.0.2:2 - - - - - - - - - - - client 7 <-> 0 0 0 0 1
ACTIVE 1000 10 1 10.0.0.1:1 10.0.0.2:2 TCP 0x03010000 - - - - - - - - - client 8 <-> 0 0 0 0 1
ACTIVE 100000 10 1 10.0.0.1:1 10.0.0.2:2 TCP 0x05000000/0x03030008 - - - - - - - - - client 12345678 <-> 0 0 0 0 1
CLOSED 1000 10 1 10.0.0.1:1 10.0.0.2:2 SMCD - - - 00000100 - - - - - - client 9 <-> 0 0 0 0 1
APPFINCLOSEWAIT 1000 10 1 [2001:db8::1111:2222:3333]:65535 [2001:db8:1111:2222:3333:4444:5555:6666]:443 SMCD - - - 00000100 - - - - - - client 9 R-W 0 0 0 0 1
PEERCLOSEWAIT1 1000 10 1 10.0.0.1:1 10.0.0.2:2 SMCD - 000000000000000a 000000000000000b 00000100 ffff:0000000e 0001:00000002 80:40 0003:00000004 0005:00000006 10:80 client 9 <-W 0 65504 131040 33 1
LISTEN 0 10 1 [::]:80 - LISTEN - - - - - - - - - - - 0 <-> 0 0 0 0 1
`
	mount := treetest.New(t, map[string]string{"conns": lines})
	for _, c := range []struct{ file, args string }{
		{"sockets-states.txt", "sockets"},
		{"sockets-states-adW.txt", "sockets -adW"},
		{"sockets-states-D.txt", "sockets -D"},
		{"sockets-states-l.txt", "sockets -l"},
		{"sockets-states-R.txt", "sockets -R"},
		{"sockets-states.json", "sockets -a --json"},
	} {
		stdout, stderr, err := run(append([]string{"--mount", mount}, strings.Fields(c.args)...)...)
		if err != nil || stderr != "" {
			t.Fatalf("%s: %v, stderr %q", c.args, err, stderr)
		}
		golden(t, c.file, stdout, mount)
	}
}

func TestLinkGroupFilter(t *testing.T) {
	mount := treetest.New(t, realTree())
	whole, _, _ := run("linkgroup", "--mount", mount)
	lines := strings.SplitAfter(whole, "\n")
	for id, want := range map[string]string{
		"100": lines[0] + lines[1], "00000200": lines[0] + lines[2], "0x200": lines[0] + lines[2], "300": lines[0],
	} {
		if got, _, err := run("linkgroup", "show", id, "--mount", mount); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", id, got, err, want)
		}
	}
}

func TestStatsJSON(t *testing.T) {
	baselineDir = t.TempDir()
	mount := treetest.New(t, realTree())
	got, _, err := run("stats", "json", "--mount", mount)
	if err != nil || !strings.HasPrefix(got, `{"SMCD": {"SMC_INT_TX_BUF_8K":0,"SMC_INT_TX_BUF_16K":0,`) ||
		!strings.HasSuffix(got, `"SMC_RX_CNT":7,"SMC_TX_CNT":6,"SMC_RX_RMB_USAGE":262144,"SMC_TX_RMB_USAGE":0}}`+"\n") {
		t.Errorf("%s, %v", got, err)
	}
	got, _, err = run("stats", "--json", "--mount", mount)
	var all struct{ Stats statistic }
	if err == nil {
		err = json.Unmarshal([]byte(got), &all)
	}
	if err != nil || all.Stats.SMCD["SMC_RX_CNT"] != 7 || all.Stats.Handshake.ServerFallback["NOUEID"] != 1 {
		t.Errorf("%s, %v", got, err)
	}
}

func TestStatsReset(t *testing.T) {
	baselineDir = t.TempDir()
	files := realTree()
	mount := treetest.New(t, files)
	stats := func(args ...string) string {
		t.Helper()
		got, stderr, err := run(append([]string{"stats", "--mount", mount}, args...)...)
		if err != nil {
			t.Fatal(err, stderr)
		}
		return got
	}
	set := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(mount, "devices/loopback-ism/stats"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := stats("-d")
	if got := stats("reset", "-d"); got != whole {
		t.Errorf("reset shows\n%s", got)
	}
	st, err := os.Lstat(baselinePath())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", st, err)
	}
	golden(t, "stats-reset-d.txt", stats("-d"), mount)
	if got := stats("-ad"); got != whole {
		t.Errorf("absolute:\n%s", got)
	}
	set(strings.NewReplacer(`"NOUEID":1`, `"NOUEID":3,"MEM":5`, `TX_CNT":6`, `TX_CNT":10`, `USAGE":262144`, `USAGE":131072`).Replace(realStats))
	golden(t, "stats-since-d.txt", stats("-d"), mount)
	set(strings.Replace(realStats, `TX_CNT":6`, `TX_CNT":5`, 1)) // not the one that was reset
	if got, all := stats("-d"), stats("-ad"); got != all {
		t.Errorf("counters below the baseline:\n%s", got)
	}
	other := treetest.New(t, nil)
	if _, _, err := run("stats", "reset", "--mount", other); err != nil {
		t.Fatal(err)
	}
	set(realStats)
	golden(t, "stats-reset-d.txt", stats("-d"), mount)
}

// TestForeignBaseline: nothing that others have put in the file's place is read, followed or written.
func TestForeignBaseline(t *testing.T) {
	mount := treetest.New(t, realTree())
	for name, make := range map[string]func(path string) error{
		"link":      func(p string) error { return os.Symlink(filepath.Join(filepath.Dir(p), "victim"), p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":      func(p string) error { return unix.Mkfifo(p, 0o600) },
		"open file": func(p string) error { return os.WriteFile(p, []byte("[]"), 0o600) },
		"two names": func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Link(p, p+".link")
		},
	} {
		t.Run(name, func(t *testing.T) {
			baselineDir = t.TempDir()
			if err := make(baselinePath()); err != nil {
				t.Fatal(err)
			}
			if name == "open file" {
				os.Chmod(baselinePath(), 0o666)
			}
			for _, verb := range []string{"show", "reset"} {
				if _, stderr, err := run("stats", verb, "--mount", mount); err == nil {
					t.Errorf("%s: no error, %q", verb, stderr)
				}
			}
			if _, err := os.Stat(filepath.Join(baselineDir, "victim")); err == nil {
				t.Error("it followed the link")
			}
			if _, _, err := run("stats", "-a", "--mount", mount); err != nil {
				t.Errorf("-a: %v", err)
			}
		})
	}
	baselineDir = t.TempDir()
	if err := os.WriteFile(baselinePath(), []byte("not JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"show", "reset", "show"} {
		if _, _, err := run("stats", verb, "--mount", mount); err != nil {
			t.Errorf("%s with a file that is no JSON: %v", verb, err)
		}
	}
}

func TestAbbreviated(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 84: "84", 999: "999", 1000: "1.000K", 1023: "1.023K", 9999: "9.999K", 12345: "12.35K", 99999: "100.0K", 262144: "262.1K",
		393216: "393.2K", 999949: "999.9K", 999950: " 1000K", 1048576: "1.049M", 9999999: "10.00M", 1 << 30: "1.074G", 1 << 40: "1.100T",
		123456789012345: "123.5T", 1 << 63: "9.223E",
	} {
		if got := abbreviated(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
		if len(abbreviated(n)) > 6 {
			t.Errorf("%d: %q is too long", n, abbreviated(n))
		}
	}
}
