// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// dump runs smcd-dump for one device and fails the test if it fails.
func (d *device) dump(args ...string) string {
	d.t.Helper()
	r := command(d.t, "smcd-dump", append(args, "--mount", d.Point)...)
	r.want(d.t, 0)
	if r.Stderr != "" {
		d.t.Errorf("smcd-dump %v says %q", args, r.Stderr)
	}
	return r.Stdout
}

// TestDumpDevice: the table of the RFC, and the same as JSON.
func TestDumpDevice(t *testing.T) {
	d := mountDevice(t)
	want := []string{
		"FID  Type  PCI-ID        PCHID  InUse  #LGs  PNET-ID",
		"0000 0     loopback-ism  ffff   No        0",
	}
	for _, args := range [][]string{{"device"}, {"d"}, {"device", "show"}} {
		var have []string
		for line := range strings.Lines(d.dump(args...)) {
			have = append(have, strings.TrimRight(line, " \n"))
		}
		if strings.Join(have, "\n") != strings.Join(want, "\n") {
			t.Errorf("smcd-dump %v prints\n%s", args, strings.Join(have, "\n"))
		}
	}
	var list struct {
		Device []struct {
			Mount, GID string
			PCHID      string
			InUse      bool `json:"in_use"`
			LinkGroups int
		}
	}
	if err := json.Unmarshal([]byte(d.dump("device", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Device) != 1 {
		t.Fatalf("it lists %+v", list.Device)
	}
	if got := list.Device[0]; got.Mount != d.Point || got.GID != d.Read("gid") || got.PCHID != "ffff" || got.InUse || got.LinkGroups != 0 {
		t.Errorf("it lists %+v", got)
	}
}

// TestDumpInfo counts the devices of this host.
func TestDumpInfo(t *testing.T) {
	d := mountDevice(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	text := d.dump("info")
	for _, want := range []string{"SMC Hostname:     " + host, "SMC-D Features:   v2", "ISM:              v2 (1 loopback-ism)"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("info does not say %q:\n%s", want, text)
		}
	}
}

// TestDumpUEID changes the device's table by the tool and looks at it by the file, and the reverse.
func TestDumpUEID(t *testing.T) {
	d := mountDevice(t)
	initial := strings.TrimRight(d.Read("ueid"), " ")
	if got := strings.TrimSpace(d.dump("ueid", "show")); got != initial || got == "" {
		t.Errorf("the tool shows %q, the file %q", got, initial)
	}
	d.dump("ueid", "add", "SITE-A")
	if !strings.Contains(d.Read("ueid"), "SITE-A") {
		t.Errorf("the file shows %q", d.Read("ueid"))
	}
	for what, args := range map[string][]string{
		"already":     {"ueid", "add", "SITE-A"},
		"Invalid":     {"ueid", "add", "lower"},
		"not defined": {"ueid", "del", "SITE-B"},
	} {
		r := command(t, "smcd-dump", append(args, "--mount", d.Point)...)
		if r.Code != 1 || !strings.Contains(r.Stderr, what) {
			t.Errorf("smcd-dump %v: %+v", args, r)
		}
	}
	if err := d.Write("ueid", "-"+initial); err != nil {
		t.Fatal(err)
	}
	if got := d.dump("ueid", "--json"); strings.Join(strings.Fields(got), "") != `{"ueid":["SITE-A"]}` {
		t.Errorf("the tool shows %s", got)
	}
	d.dump("ueid", "flush")
	if got := d.Read("ueid"); got != "" {
		t.Errorf("after flush the file shows %q", got)
	}
	execute(t, user(1234), "smcd-dump", "ueid", "add", "SITE-C", "--mount", d.Point).want(t, 1, "privileges")
}

// TestDumpOfNothing: without the device that is meant the tools say so, and how to get one.
func TestDumpOfNothing(t *testing.T) {
	dir := tempDir(t)
	command(t, "smcd-dump", "device", "--mount", dir).want(t, 1, dir, "ismfs mount")
	d := mountDevice(t, "--sockets=off")
	d.Kill()
	command(t, "smcd-dump", "device", "--mount", d.Point).want(t, 1, "--replace")
}

// TestDumpBesideDead: a mount whose daemon has died is in nobody's way.
func TestDumpBesideDead(t *testing.T) {
	dead, living := mountDevice(t, "--sockets=off"), mountDevice(t, "--sockets=off")
	dead.Kill()
	for _, object := range []string{"device", "info", "linkgroup", "sockets"} {
		r := command(t, "smcd-dump", object)
		r.want(t, 0, "Warning: not shown: dead ismfs mount at "+dead.Point)
		if strings.Contains(r.Stderr, "not found") {
			t.Errorf("smcd-dump %s says %q", object, r.Stderr)
		}
	}
	var list struct{ Device []struct{ GID string } }
	if err := json.Unmarshal([]byte(command(t, "smcd-dump", "device", "--json").Stdout), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Device) != 1 || list.Device[0].GID != living.Read("gid") {
		t.Errorf("it lists %+v, want the living one's GID %s", list.Device, living.Read("gid"))
	}
	for _, object := range []string{"ueid", "stats"} {
		if r := command(t, "smcd-dump", object); r.Code != 0 || r.Stderr != "" {
			t.Errorf("smcd-dump %s: %+v", object, r)
		}
	}
}

// TestInfo: `ismfs info --json` shows what the tree says.
func TestInfo(t *testing.T) {
	d := mountDevice(t, "--max-dmbs=77", "--dmb-copy=1", "--dmb-type=1", "--source=name of it")
	c := startClient(t)
	c.Register(d, "00000000000001f0", 65536)
	var infos []struct {
		GID        string
		MountPoint string `json:"mount_point"`
		Source     string
		Alive      bool
		DMBType    int `json:"dmb_type"`
		DMBCopy    int `json:"dmb_copy"`
		UEIDs      []string
		Device     struct {
			PID     int
			State   string
			MaxDMBs int `json:"max_dmbs"`
			DMBs    int
			Bytes   int
			Version string
		}
	}
	r := command(t, "ismfs", "info", "--json")
	r.want(t, 0)
	if err := json.Unmarshal([]byte(r.Stdout), &infos); err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.MountPoint != d.Point {
			continue
		}
		v := i.Device
		if !i.Alive || i.GID != d.Read("gid") || i.Source != "name of it" || i.DMBType != 1 || i.DMBCopy != 1 || len(i.UEIDs) != 1 ||
			v.PID != d.cmd.Process.Pid || v.State != "active" || v.MaxDMBs != 77 || v.DMBs != 1 || v.Bytes != 65536 {
			t.Errorf("info shows %+v", i)
		}
		if own := command(t, "ismfs", "version").Stdout; own != "ismfs "+v.Version+"\n" {
			t.Errorf("the command is %q, its daemon %q", own, v.Version)
		}
		return
	}
	t.Errorf("info does not list %s: %s", d.Point, r.Stdout)
}

// TestInfoOfNothing: where no ismfs is mounted, which here is a mount namespace of its own, info says so and how to get one.
func TestInfoOfNothing(t *testing.T) {
	const script = inNewMounts + `grep -- '- fuse.ismfs ' /proc/self/mountinfo | cut -d' ' -f5 | xargs -r -n1 umount -l; exec "$0" info "$@"`
	bare := func(args ...string) result {
		return execute(t, nil, "unshare", append([]string{"-m", "sh", "-euc", script, bin + "/ismfs"}, args...)...)
	}
	mountDevice(t)
	bare().want(t, 7, "ismfs mount")
	r := bare("--json")
	if r.want(t, 0); strings.TrimSpace(r.Stdout) != "[]" {
		t.Errorf("info --json prints %q", r.Stdout)
	}
}

func TestVersion(t *testing.T) {
	for _, row := range []struct{ name, arg, says string }{
		{"ismfs", "version", `^ismfs \S+\n$`},
		{"ismfs", "--version", `^ismfs version \S+\n$`},
		{"smcd-dump", "--version", `^smcd-dump utility, ismfs-\S+\n$`},
		{"smcd-dump", "-v", `^smcd-dump utility, ismfs-\S+\n$`},
	} {
		r := command(t, row.name, row.arg)
		if r.Code != 0 || !regexp.MustCompile(row.says).MatchString(r.Stdout) {
			t.Errorf("%s %s: %+v", row.name, row.arg, r)
		}
	}
	if r := command(t, "ismfs", "version", "x"); r.Code != 2 {
		t.Errorf("ismfs version x: %+v", r)
	}
}
