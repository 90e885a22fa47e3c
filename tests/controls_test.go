// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const testGID = "01234567-89ab-4cde-8f01-23456789abcd"

// readOnlyControls and writableControls are all of them.
var (
	readOnlyControls = []string{"gid", "chid", "xfer_bytes", "dmbs_cnt", "conns", "linkgroups", "stats"}
	writableControls = []string{"active", "dmb_type", "dmb_copy", "ueid"}
)

// TestControlTexts holds every control against the texts of the kernel's patches.
func TestControlTexts(t *testing.T) {
	const (
		physical, virtual = "0: Physically contiguous buffer", "1: Virtually contiguous buffer"
		merged, separated = "0: sndbuf and DMB merged and no data copied", "1: sndbuf and DMB separated and data copied"
		uuid              = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
	)
	common := map[string]string{
		"gid": uuid + "\n", "chid": "ffff\n", "active": "1\n", "dmb_type": physical + "\n", "dmb_copy": merged + "\n",
		"xfer_bytes": "0\n", "dmbs_cnt": "0\n", "ueid": "ISMFS-DEFAULT-UEID\n", "conns": "", "linkgroups": "",
		"stats": `\{"SMCD":\{.*\},"device":\{.*\}\}` + "\n",
	}
	for _, tt := range []struct {
		name string
		args []string
		want map[string]string
	}{
		{"defaults", nil, nil},
		{"options", []string{"--dmb-type=1", "--dmb-copy=1", "--device-gid=" + testGID},
			map[string]string{"gid": testGID + "\n", "dmb_type": virtual + "\n", "dmb_copy": separated + "\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := mountDevice(t, tt.args...)
			for name, want := range common {
				if w, ok := tt.want[name]; ok {
					want = w
				}
				have := d.Read(name)
				if want != "" {
					have += "\n" // which Read has taken
				}
				if !regexp.MustCompile("^" + want + "$").MatchString(have) {
					t.Errorf("%s reads %q, not %q", name, have, want)
				}
			}
		})
	}
}

// TestTreeNames: what is in the tree, with the modes that say what can be done with it.
func TestTreeNames(t *testing.T) {
	d := mountDevice(t)
	want := slices.Concat(readOnlyControls, writableControls, []string{"dmbs", "bells", "procs"})
	have, err := startClient(t).ReadDir(d.Dir)
	slices.Sort(want)
	slices.Sort(have)
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("the device's directory holds %v, %v; not %v", have, err, want)
	}
	for _, tt := range []struct {
		names []string
		mode  uint32
	}{
		{readOnlyControls, unix.S_IFREG | 0o444},
		{writableControls, unix.S_IFREG | 0o644},
		{[]string{"dmbs", "procs"}, unix.S_IFDIR | 0o1777},
		{[]string{"bells"}, unix.S_IFDIR | 0o555},
		{[]string{"procs/self"}, unix.S_IFLNK | 0o777},
	} {
		for _, name := range tt.names {
			var st unix.Stat_t
			if err := unix.Lstat(d.Path(name), &st); err != nil || st.Mode != tt.mode {
				t.Errorf("%s has mode %o, %v; not %o", name, st.Mode, err, tt.mode)
			}
		}
	}
}

// TestTwoDevices: two mounts are two devices.
func TestTwoDevices(t *testing.T) {
	a, b := mountDevice(t), mountDevice(t)
	if a.Read("gid") == b.Read("gid") {
		t.Error("two devices have the same GID")
	}
	c := startClient(t)
	c.Register(a, tokenOf(1), 4096)
	wantErrno(t, "dmb_copy of one", a.Write("dmb_copy", "1"), nil)
	if a.Read("dmbs_cnt") != "1" || b.Read("dmbs_cnt") != "0" || !strings.HasPrefix(b.Read("dmb_copy"), "0:") {
		t.Error("what happens on one device shows on the other")
	}
	_, err := c.Open(b.Path("dmbs", tokenOf(1)), readWrite)
	wantErrno(t, "a DMB of the one looked up on the other", err, unix.ENOENT)
}

// TestControlSnapshot: a handle reads what stood when it was opened, in pieces and again, whatever happens meanwhile.
func TestControlSnapshot(t *testing.T) {
	d := mountDevice(t)
	reader, writer := startClient(t), startClient(t)
	for _, tt := range []struct {
		control    string
		change     func() error
		old, young string
	}{
		{"dmb_copy", func() error { return writer.WriteFile(d.Path("dmb_copy"), "1\n") },
			"0: sndbuf and DMB merged and no data copied\n", "1: sndbuf and DMB separated and data copied\n"},
		{"ueid", func() error { return writer.WriteFile(d.Path("ueid"), "+MY.UEID\n") },
			"ISMFS-DEFAULT-UEID\n", "ISMFS-DEFAULT-UEID\nMY.UEID\n"},
		{"dmbs_cnt", func() error { writer.Register(d, tokenOf(1), 4096); return nil }, "0\n", "1\n"},
		{"active", func() error { return writer.WriteFile(d.Path("active"), "drain") }, "1\n", "drain\n"},
	} {
		t.Run(tt.control, func(t *testing.T) {
			fd := reader.MustOpen(d.Path(tt.control), unix.O_RDONLY)
			if err := tt.change(); err != nil {
				t.Fatal(err)
			}
			for _, at := range []int{0, 1, len(tt.old) - 1, len(tt.old), len(tt.old) + 9, 0} {
				b, err := reader.Pread(fd, 100, int64(at))
				if want := tt.old[min(at, len(tt.old)):]; err != nil || string(b) != want {
					t.Errorf("the old handle reads %q, %v from %d; not %q", b, err, at, want)
				}
			}
			if have, err := reader.ReadFile(d.Path(tt.control)); err != nil || have != tt.young {
				t.Errorf("a new handle reads %q, %v; not %q", have, err, tt.young)
			}
		})
	}
}

// TestControlWords: what each control takes, and that it then reads so.
func TestControlWords(t *testing.T) {
	d := mountDevice(t)
	for control, words := range map[string]map[string]string{
		"active": {"0": "0", "off": "0", "n": "0", "No\n": "0", "F": "0", "false": "0", "1": "1", "ON\n": "1", "y": "1",
			"yes": "1", "True": "1", "drain": "drain", "drain\n": "drain"},
		"dmb_type": {"1": "1: V", "0\n": "0: P", "0x1": "1: V", "00": "0: P", "01\n": "1: V", "+1": "1: V"},
		"dmb_copy": {"1": "1: s", "0\n": "0: s", "0x1": "1: s", "00": "0: s", "01\n": "1: s", "+1": "1: s"},
	} {
		for word, want := range words {
			if control == "active" {
				wantErrno(t, "active 1", d.Write("active", "1"), nil)
			}
			if err := os.WriteFile(d.Path(control), []byte(word), 0); err != nil {
				t.Errorf("%q into %s: %v", word, control, err)
			} else if have := d.Read(control); !strings.HasPrefix(have, want) {
				t.Errorf("%s reads %q after %q", control, have, word)
			}
		}
	}
}

// TestControlJunk: whatever else is written is refused and changes nothing.
func TestControlJunk(t *testing.T) {
	d := mountDevice(t)
	fds := map[string]int{}
	c := startClient(t)
	for _, control := range writableControls {
		fds[control] = c.MustOpen(d.Path(control), readWrite)
	}
	common := []string{
		"\n", " ", "1 ", " 1", "1\n\n", "1\n0", "2", "-1", "-0", "0x", "0x2", "0b1", "0o1", "0_1", "08", "1e0", "++1", "\x00", "1\x00",
		"٠", "99999999999999999999", "4294967296", "4294967297", "drain\n\n", "draining", "DRAIN", "0: Physically contiguous buffer",
		strings.Repeat("0", 4096), strings.Repeat("1", 4097), strings.Repeat("0", 200<<10), strings.Repeat("\n", 300<<10),
	}
	own := map[string][]string{
		"active": {"o", "onn", "01", "0x1", "+1"},
		"ueid": {"+", "-", "ABC", "+abc", "+A B", "+ A", "+-A", "+.A", "+A_B", "+A\nB", "+A\n+B", "+A\x00", "+Ä", "-abc", "- A",
			"+" + strings.Repeat("A", 33), "-" + strings.Repeat("A", 33), "*A", "++A"},
	}
	for _, control := range writableControls {
		before := d.Read(control)
		for _, junk := range slices.Concat(common, own[control]) {
			switch {
			case control == "ueid" && junk[0] == '-' && len(junk) == 2: // a name that could be there
				continue
			case strings.HasPrefix(control, "dmb_") && strings.Trim(junk, "0") == "" && len(junk) <= 4096: // a long 0
				continue
			}
			// By a write of its own: os.WriteFile would go on after a part that was taken.
			err := c.Pwrite(fds[control], []byte(junk), 0)
			wantErrno(t, fmt.Sprintf("%.40q (%d bytes) into %s", junk, len(junk), control), err, unix.EINVAL)
			if have := d.Read(control); have != before {
				t.Fatalf("%.40q has changed %s to %q", junk, control, have)
			}
		}
		wantErrno(t, "nothing into "+control, c.Pwrite(fds[control], nil, 0), nil)
		if have := d.Read(control); have != before {
			t.Fatalf("a write of nothing has changed %s to %q", control, have)
		}
	}
}

// TestControlPieces: each write is a value of its own, as in sysfs: a byte at a time nothing longer than a byte can be said.
// Where in the file it is written does not matter.
func TestControlPieces(t *testing.T) {
	d := mountDevice(t)
	c := startClient(t)
	write := func(control, text string, want ...error) {
		t.Helper()
		fd := c.MustOpen(d.Path(control), unix.O_WRONLY)
		defer c.Close(fd)
		for i := range text {
			wantErrno(t, fmt.Sprintf("byte %d of %q into %s", i, text, control), c.Pwrite(fd, []byte(text[i:i+1]), int64(i)), want[min(i, len(want)-1)])
		}
	}
	write("dmb_copy", "1\n", nil, unix.EINVAL)
	write("active", "drai", unix.EINVAL) // and not the n, which is a no
	write("ueid", "+NAME\n", unix.EINVAL)
	if d.Read("dmb_copy")[0] != '1' || d.Read("active") != "1" || d.Read("ueid") != "ISMFS-DEFAULT-UEID" {
		t.Errorf("dmb_copy %q, active %q, ueid %q", d.Read("dmb_copy"), d.Read("active"), d.Read("ueid"))
	}
	fd := c.MustOpen(d.Path("dmb_copy"), unix.O_WRONLY|unix.O_APPEND|unix.O_TRUNC)
	wantErrno(t, "write at 1<<40", c.Pwrite(fd, []byte("0\n"), 1<<40), nil)
	if d.Read("dmb_copy")[0] != '0' {
		t.Error("a value written at 1<<40 is not taken")
	}
}

// TestControlAccess: who may not write is told when it opens, and a handle that has come into other hands writes nothing.
func TestControlAccess(t *testing.T) {
	d := mountDevice(t)
	root, user := startClient(t), startClient(t, asUser(1000))
	for _, control := range slices.Concat(readOnlyControls, writableControls) {
		path := d.Path(control)
		before, clients := d.Read(control), []*client{user}
		if slices.Contains(readOnlyControls, control) {
			clients = append(clients, root)
		}
		for _, c := range clients {
			for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDWR | unix.O_APPEND | unix.O_CREAT} {
				_, err := c.Open(path, flags)
				wantErrno(t, fmt.Sprintf("open %s with %#x", control, flags), err, unix.EACCES)
			}
			_, err := c.Syscall(unix.SYS_TRUNCATE, path, 0)
			wantErrno(t, "truncate "+control, err, unix.EACCES)
		}
		_, err := user.ReadFile(path)
		wantErrno(t, "the user reads "+control, err, nil)
		if control != "stats" && d.Read(control) != before {
			t.Errorf("%s has changed to %q", control, d.Read(control))
		}
	}
	for control, value := range map[string]string{"active": "0", "dmb_type": "1", "dmb_copy": "1", "ueid": "+A"} {
		f, err := os.OpenFile(d.Path(control), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := d.Read(control)
		heir := startClient(t, asUser(1000), inheriting(f))
		f.Close()
		wantErrno(t, "an inherited handle on "+control, heir.Pwrite(3, []byte(value), 0), unix.EPERM)
		if have := d.Read(control); have != before {
			t.Errorf("%s has changed to %q", control, have)
		}
	}
	// The same handle, the same process, another uid.
	c := startClient(t)
	fd := c.MustOpen(d.Path("dmb_copy"), unix.O_WRONLY)
	wantErrno(t, "root writes", c.Pwrite(fd, []byte("1"), 0), nil)
	wantErrno(t, "setuid", c.Become(1000), nil)
	wantErrno(t, "after setuid", c.Pwrite(fd, []byte("0"), 0), unix.EPERM)
}

func TestUEIDs(t *testing.T) {
	d := mountDevice(t)
	longest := strings.Repeat("Z", 32)
	for _, step := range []struct {
		write string
		err   error
		want  string
	}{
		{"+ISMFS-DEFAULT-UEID", unix.EEXIST, "ISMFS-DEFAULT-UEID"},
		{"-ABSENT", unix.ENOENT, "ISMFS-DEFAULT-UEID"},
		{"+" + longest, nil, "ISMFS-DEFAULT-UEID\n" + longest},
		{"+9.A-B", nil, "ISMFS-DEFAULT-UEID\n" + longest + "\n9.A-B"},
		{"-ISMFS-DEFAULT-UEID", nil, longest + "\n9.A-B"},
		{"+A", nil, longest + "\n9.A-B\nA"},
		{"+B", nil, longest + "\n9.A-B\nA\nB"},
		{"+C", unix.ERANGE, longest + "\n9.A-B\nA\nB"},
		{"+A", unix.EEXIST, longest + "\n9.A-B\nA\nB"},
		{"-A", nil, longest + "\n9.A-B\nB"},
		{"-A", unix.ENOENT, longest + "\n9.A-B\nB"},
		{"-B", nil, longest + "\n9.A-B"},
		{"-9.A-B", nil, longest},
		{"-" + longest, nil, ""},
		{"-" + longest, unix.ENOENT, ""},
		{"+A", nil, "A"},
	} {
		wantErrno(t, step.write, d.Write("ueid", step.write), step.err)
		if have := d.Read("ueid"); have != step.want {
			t.Errorf("after %s: %q, not %q", step.write, have, step.want)
		}
	}
}
