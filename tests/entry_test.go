// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnseenCaller: a process that a daemon in a pid namespace cannot see may read what is anybody's to read, and neither make
// nor have nor turn anything.
func TestUnseenCaller(t *testing.T) {
	d := mountDeviceInPIDNamespace(t)
	c := startClient(t)
	for _, control := range readOnlyControls {
		_, err := c.ReadFile(d.Path(control))
		wantErrno(t, "reads "+control, err, nil)
	}
	for _, flags := range []int{register, unix.O_RDWR | unix.O_CREAT} {
		_, err := c.Open(d.Path("dmbs", tokenOf(1)), flags)
		wantErrno(t, "registers", err, unix.EPERM)
	}
	_, err := c.Open(d.Path("procs", "1"), register)
	wantErrno(t, "makes a procs block", err, unix.EPERM)
	_, err = c.call("Readlink", CallArgs{Path: d.Path("procs", "self")})
	wantErrno(t, "asks for its id", err, unix.EPERM)
	for _, dir := range []string{"dmbs", "bells", "procs"} {
		_, err := c.ReadDir(d.Path(dir))
		wantErrno(t, "lists "+dir, err, unix.EPERM)
	}
	for _, control := range writableControls {
		_, err := c.Open(d.Path(control), unix.O_RDWR)
		wantErrno(t, "opens "+control, err, unix.EACCES)
	}
	if s := c.Stats(d).Device; len(s.Processes) != 0 || len(s.Liars) != 0 {
		t.Errorf("sees processes %v, liars %v", s.Processes, s.Liars)
	}
}

// TestUIDOption: the uid for which a device is mounted may turn its knobs and see everything, on the host itself.
func TestUIDOption(t *testing.T) {
	d := mountDevice(t, "--uid=1000", "--gid=1000")
	root := startParty(t, d, "root", 0)
	admin := startParty(t, d, "the admin", 1, asUser(1000))
	other := startParty(t, d, "uid 1001", 2, asUser(1001))
	elsewhere := []*party{
		startParty(t, d, "the admin's uid in a pid namespace", 3, asUser(1000), inNamespaces(unix.CLONE_NEWPID)),
		startParty(t, d, "the admin's uid in a user namespace", 4, inUserNamespace(1000, 0)),
	}
	everybody := append(elsewhere, root, admin, other)
	admin.wantSees(everybody...)
	root.wantSees(everybody...)
	for _, u := range append(elsewhere, other) {
		u.wantSees(u)
		u.wantTurnsNothing()
		u.wantNothingOf(admin)
	}
	for control, value := range map[string]string{"active": "drain\n", "dmb_type": "1\n", "dmb_copy": "1\n", "ueid": "+A\n"} {
		wantErrno(t, "the admin turns "+control, admin.WriteFile(d.Path(control), value), nil)
	}
	wantErrno(t, "root turns active", root.WriteFile(d.Path("active"), "1"), nil)
	if d.Read("ueid") != "ISMFS-DEFAULT-UEID\nA" || d.Read("dmb_type")[0] != '1' || d.Read("dmb_copy")[0] != '1' || d.Read("active") != "1" {
		t.Error("the knobs do not say what was written")
	}
	wantErrno(t, "the admin removes another's", admin.Unlink(d.Path("dmbs", elsewhere[0].shell)), nil)
	for _, name := range []string{"", "gid", "active", "dmbs"} {
		if st, err := admin.Stat(d.Path(name)); err != nil || st.Uid != 1000 || st.Gid != 1000 {
			t.Errorf("%s belongs to %d:%d, %v", d.Path(name), st.Uid, st.Gid, err)
		}
	}
}

// TestModeOption: the root directory's mode decides who comes in, each time, whoever has been in before.
func TestModeOption(t *testing.T) {
	const owner, group = 1000, 2000
	for _, tt := range []struct {
		mode                                         string
		theOwner, primary, supplementary, nobodyElse bool
	}{
		{"0755", true, true, true, true},
		{"0750", true, true, true, false},
		{"0700", true, false, false, false},
		{"0070", false, true, true, false},
		{"0001", false, false, false, true},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			d := mountDevice(t, fmt.Sprintf("--uid=%d", owner), fmt.Sprintf("--gid=%d", group), "--mode="+tt.mode)
			members := []struct {
				name string
				may  bool
				c    *client
			}{
				{"root", true, startClient(t)},
				{"the owner", tt.theOwner, startClient(t, asUser(owner))},
				{"one of the group", tt.primary, startClient(t, inGroups(1001, group))},
				{"one who has the group beside another", tt.supplementary, startClient(t, inGroups(1002, 3000, 4000, group))},
				{"another", tt.nobodyElse, startClient(t, inGroups(1003, 3000, 4000))},
				{"a user namespace's root", tt.nobodyElse, startClient(t, inUserNamespace(1004, 0))},
			}
			if st, err := members[0].c.Stat(d.Point); err != nil || fmt.Sprintf("%04o", st.Mode&0o777) != tt.mode {
				t.Errorf("the root directory has mode %o, %v", st.Mode, err)
			}
			for range 2 { // the second time the kernel has been asked for every name
				for n, m := range members {
					var want error = unix.EACCES
					if m.may {
						want = nil
					}
					_, err := m.c.Stat(filepath.Join(d.Point, "devices"))
					wantErrno(t, m.name+" stats devices", err, want)
					_, err = m.c.ReadFile(d.Path("gid"))
					wantErrno(t, m.name+" reads gid", err, want)
					_, err = m.c.ReadDir(d.Point)
					wantErrno(t, m.name+" lists the root", err, want)
					_, err = m.c.Syscall(unix.SYS_CHDIR, d.Point)
					wantErrno(t, m.name+" enters the root", err, want)
					_, err = m.c.Syscall(unix.SYS_CHDIR, "/")
					wantErrno(t, "cd /", err, nil)
					fd, err := m.c.Open(d.Path("dmbs", tokenOf(n)), unix.O_RDWR|unix.O_CREAT)
					wantErrno(t, m.name+" registers", err, want)
					if err == nil {
						m.c.Close(fd)
					}
				}
			}
		})
	}
}

// TestNoAllowOther: without allow_other the kernel lets in the mounting uid alone.
func TestNoAllowOther(t *testing.T) {
	d := mountDevice(t, "--allow-other=false")
	startClient(t).Register(d, tokenOf(1), 4096)
	for name, change := range map[string]func(*exec.Cmd){"a user": asUser(1000), "a user namespace's root": inUserNamespace(1000, 0)} {
		c := startClient(t, change)
		for _, path := range []string{d.Point, d.Path("gid"), d.Path("dmbs", tokenOf(1))} {
			_, err := c.Open(path, unix.O_RDONLY)
			wantErrno(t, name+" opens "+path, err, unix.EACCES)
		}
		_, err := c.Open(d.Path("dmbs", tokenOf(2)), register)
		wantErrno(t, name+" registers", err, unix.EACCES)
	}
}
