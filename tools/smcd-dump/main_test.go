// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/tree"
	"github.com/ismfs/ismfs/tree/treetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// run runs smcd-dump and returns what it printed.
func run(args ...string) (stdout, stderr string, err error) {
	var out, errOut bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	err = cmd.Execute()
	return out.String(), errOut.String(), err
}

// golden compares got with testdata/name, in which MOUNT and HOST stand for what differs from run to run.
func golden(t *testing.T, name, got, mount string) {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got = strings.ReplaceAll(got, mount, "MOUNT")
	got = strings.ReplaceAll(got, "SMC Hostname:     "+host+"\n", "SMC Hostname:     HOST\n")
	got = strings.ReplaceAll(got, `"smc_hostname": "`+host+`"`, `"smc_hostname": "HOST"`)
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs.\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestGolden(t *testing.T) {
	used := map[string]string{"linkgroups": groupLines}
	eids := map[string]string{"ueid": "ISMFS-DEFAULT-UEID\nSITE-A.1\n"}
	for _, c := range []struct {
		file    string
		changed map[string]string
		args    string
	}{
		{"device.txt", nil, "device"},
		{"device.txt", nil, "d"},
		{"device.txt", nil, "dev show all"},
		{"device.txt", nil, "device all"},
		{"device-used.txt", used, "device"},
		{"device.json", nil, "device --json"},
		{"device-used.json", used, "d --json"},
		{"info.txt", nil, "info"},
		{"info.txt", nil, "i s"},
		{"info.json", nil, "info --json"},
		{"ueid.txt", eids, "ueid"},
		{"ueid.txt", eids, "u s"},
		{"ueid.json", eids, "ueid show --json"},
		{"ueid-empty.json", map[string]string{"ueid": ""}, "ueid --json"},
	} {
		t.Run(c.args, func(t *testing.T) {
			mount := treetest.New(t, c.changed)
			stdout, stderr, err := run(append(strings.Fields(c.args), "--mount", mount)...)
			if err != nil || stderr != "" {
				t.Fatalf("%v, stderr %q", err, stderr)
			}
			golden(t, c.file, stdout, mount)
		})
	}
}

func TestMountFromEnvironment(t *testing.T) {
	t.Setenv(tree.EnvMount, treetest.New(t, nil))
	stdout, _, err := run("ueid")
	if want := "ISMFS-DEFAULT-UEID              \n"; err != nil || stdout != want {
		t.Errorf("printed %q, %v; want %q", stdout, err, want)
	}
}

func TestRefusals(t *testing.T) {
	mount := treetest.New(t, nil)
	for _, c := range []struct{ args, says string }{
		{"lgr show", `Error: Object "lgr" is unknown, try "smcd-dump help".`},
		{"device x", `Error: unexpected "x", try "smcd-dump device --help"`},
		{"device all show", `Error: unexpected "show"`},
		{"info all", `Error: unexpected "all"`},
		{"linkgroup show 100 x", `Error: unexpected "x", try "smcd-dump linkgroup --help"`},
		{"linkgroup 100 show", `Error: unexpected "show"`},
		{"stats x", `Error: unexpected "x", try "smcd-dump stats --help"`},
		{"stats show reset", `Error: unexpected "reset"`},
		{"sockets x", `Error: unexpected "x"`},
		{"sockets -DR", "Error: --smcd together with --smcr is not supported"},
		{"sockets -ld", "Error: --listening together with --debug is not supported"},
		{"-d sockets -l", "Error: --listening together with --debug is not supported"},
		{"sockets -la", "Error: --listening together with --all is not supported"},
		{"sockets -lR", "Error: --listening together with --smcr is not supported"},
		{"sockets -lD", "Error: --listening together with --smcd is not supported"},
		{"s", `Error: Object "s" is ambiguous: it could be sockets or stats.`},
		{"linkgroup show zzz", `Error: "zzz" is no link group id: up to 8 hexadecimal digits`},
		{"linkgroup fffffffff", `Error: "fffffffff" is no link group id`},
		{"ueid x", `Error: unknown command "x", try "smcd-dump ueid --help"`},
		{"ueid add", "Error: one User EID is needed: smcd-dump ueid add NAME"},
		{"ueid del A B", "Error: one User EID is needed: smcd-dump ueid del NAME"},
		{"ueid add a", "Error: Invalid User EID specified: unsupported character: 'a'"},
		{"device --mount /nonexistent", "Error: SMC-D device not found: no ismfs mount at /nonexistent: `ismfs mount"},
	} {
		t.Run(c.args, func(t *testing.T) {
			stdout, stderr, err := run(append([]string{"--mount", mount}, strings.Fields(c.args)...)...)
			if err == nil || stdout != "" || !strings.HasPrefix(stderr, c.says) {
				t.Errorf("error %v, stdout %q, stderr %q; want stderr %q", err, stdout, stderr, c.says)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"-v", "--version"} {
		if stdout, _, err := run(flag); err != nil || !strings.HasPrefix(stdout, "smcd-dump utility, ismfs-") {
			t.Errorf("%s: %q, %v", flag, stdout, err)
		}
	}
}

func TestDeviceTableOfSeveral(t *testing.T) {
	var out bytes.Buffer
	err := writeDeviceTable(&out, []deviceRow{
		{PCIID: "loopback-ism", PCHID: "ffff"},
		{PCIID: "loopback-ism", PCHID: "ffff", InUse: true, LinkGroups: 12},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "device-several.txt", out.String(), "MOUNT")
}
