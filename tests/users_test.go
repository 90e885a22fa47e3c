// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// party is a client that has made one of everything: a leased DMB, one as from a shell, and a procs block.
type party struct {
	*client
	d             *device
	name          string
	id            string // in procs/
	leased, shell string // tokens
	shellFD       int
	own           int // mapping of the leased one
}

const userDMB = 16 << 10

// startParty starts a client whose tokens are made from n.
func startParty(t *testing.T, d *device, name string, n int, change ...func(*exec.Cmd)) *party {
	t.Helper()
	u := &party{client: startClient(t, change...), d: d, name: name, leased: tokenOf(2 * n), shell: tokenOf(2*n + 1)}
	_, u.own = u.Register(d, u.leased, userDMB)
	u.shellFD = u.MustOpen(d.Path("dmbs", u.shell), unix.O_RDWR|unix.O_CREAT)
	wantErrno(t, "size", u.Truncate(u.shellFD, 4096), nil)
	u.Block(d)
	u.id = u.Self(d)
	return u
}

// wantSees fails unless the listings show a user what these users have made, and nothing else.
func (u *party) wantSees(users ...*party) {
	t := u.t
	t.Helper()
	var tokens, ids []string
	for _, o := range users {
		tokens = append(tokens, o.leased, o.shell)
		ids = append(ids, o.id)
	}
	for dir, want := range map[string][]string{"dmbs": tokens, "bells": tokens, "procs": append(ids, "self")} {
		have, err := u.ReadDir(u.d.Path(dir))
		slices.Sort(have)
		slices.Sort(want)
		if err != nil || !slices.Equal(have, want) {
			t.Errorf("%s sees %v in %s, %v; not %v", u.name, have, dir, err, want)
		}
	}
	var processes []string
	for _, p := range u.Stats(u.d).Device.Processes {
		processes = append(processes, fmt.Sprint(p.ID))
	}
	slices.Sort(processes)
	slices.Sort(ids)
	if !slices.Equal(processes, ids) {
		t.Errorf("%s sees processes %v in stats, not %v", u.name, processes, ids)
	}
}

// wantNothingOf fails if a user can see, read, remove or turn anything of another's, although it knows the names. What a token
// gives to whoever knows it, it gives to this user too: to be the peer.
func (u *party) wantNothingOf(o *party) {
	t := u.t
	t.Helper()
	what := func(does string) string { return fmt.Sprintf("%s %s of %s", u.name, does, o.name) }
	procs := u.d.Path("procs", o.id)
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
		_, err := u.Open(procs, flags)
		wantErrno(t, what("opens the block"), err, unix.ENOENT)
	}
	_, err := u.Open(procs, register)
	if err != unix.EPERM {
		wantErrno(t, what("creates the block"), err, unix.EEXIST)
	}
	_, err = u.Stat(procs)
	wantErrno(t, what("stats the block"), err, unix.ENOENT)
	for _, token := range []string{o.leased, o.shell} {
		path := u.d.Path("dmbs", token)
		wantErrno(t, what("removes DMB "+token), u.Unlink(path), unix.EPERM)
		for _, n := range []int64{0, 4096, 8192, userDMB} {
			_, err := u.Syscall(unix.SYS_TRUNCATE, path, n)
			wantErrno(t, what(fmt.Sprintf("truncates to %d DMB %s", n, token)), err, unix.EPERM)
		}
	}
}

// wantTurnsNothing fails if a user can write a control, by opening it or through a handle of root's.
func (u *party) wantTurnsNothing() {
	t := u.t
	t.Helper()
	for _, control := range writableControls {
		before := u.d.Read(control)
		_, err := u.Open(u.d.Path(control), unix.O_RDWR)
		wantErrno(t, u.name+" opens "+control, err, unix.EACCES)
		_, err = u.Syscall(unix.SYS_TRUNCATE, u.d.Path(control), 0)
		wantErrno(t, u.name+" truncates "+control, err, unix.EACCES)
		_, err = u.Syscall(unix.SYS_FACCESSAT2, unix.AT_FDCWD, u.d.Path(control), 2, unix.AT_EACCESS)
		wantErrno(t, u.name+" asks whether it may write "+control, err, unix.EACCES)
		if u.d.Read(control) != before {
			t.Errorf("%s has turned %s", u.name, control)
		}
	}
}

// wantAttaches fails unless a user can be the peer of another's DMB, and hears it.
func (u *party) wantAttaches(o *party) {
	t := u.t
	t.Helper()
	fd, err := u.Open(u.d.Path("dmbs", o.leased), readWrite)
	if err != nil {
		t.Errorf("%s attaches to the DMB of %s: %v", u.name, o.name, err)
		return
	}
	m := u.MustMap(fd, userDMB)
	text := []byte("from " + u.name)
	wantErrno(t, "store", u.Store(m, text, 32), nil)
	if b, err := o.Load(o.own, len(text), 32); err != nil || string(b) != string(text) {
		t.Errorf("%s reads %q, %v", o.name, b, err)
	}
	bell := u.MustOpen(u.d.Path("bells", o.leased), unix.O_RDWR|unix.O_NONBLOCK)
	hears := o.MustOpen(u.d.Path("bells", o.leased), unix.O_RDWR|unix.O_NONBLOCK)
	_, err = u.Syscall(unix.SYS_WRITE, bell, "\x01", 1)
	wantErrno(t, "ring", err, nil)
	wantErrno(t, o.name+" hears the bell", o.Poll(hears, patience), nil)
	if st, err := u.Fstat(fd); err != nil || st.Nlink != 2 {
		t.Errorf("st_nlink %d, %v", st.Nlink, err)
	}
}

// wantOwns fails unless a user can do with its own what an owner can.
func (u *party) wantOwns() {
	t := u.t
	t.Helper()
	for _, token := range []string{u.leased, u.shell} {
		wantErrno(t, u.name+" looks at its own", u.readSome(u.d.Path("dmbs", token)), nil)
	}
	wantErrno(t, u.name+" looks at its block", u.readSome(u.d.Path("procs", u.id)), nil)
	wantErrno(t, u.name+" removes its own", u.Unlink(u.d.Path("dmbs", u.shell)), nil)
	wantErrno(t, "close", u.Close(u.shellFD), nil)
}

func (u *party) readSome(path string) error {
	fd, err := u.Open(path, unix.O_RDONLY)
	if err == nil {
		_, err = u.Pread(fd, 64, 0)
		u.Close(fd)
	}
	return err
}

// TestUsers: who sees what, over uids, namespaces and capabilities. Everybody is a stranger to everybody else, but for the
// host's root, who sees all, and for two processes of one user.
func TestUsers(t *testing.T) {
	d := mountDevice(t)
	const newNet = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS
	root := startParty(t, d, "root", 0)
	strangers := []*party{
		startParty(t, d, "uid 1000", 1, asUser(1000)),
		startParty(t, d, "uid 1001", 2, asUser(1001)),
		startParty(t, d, "uid 1000 in a pid namespace", 3, asUser(1000), inNamespaces(unix.CLONE_NEWPID)),
		startParty(t, d, "uid 1001 in all namespaces but the user's", 4, asUser(1001), inNamespaces(unix.CLONE_NEWPID|newNet)),
		startParty(t, d, "uid 0 of a user namespace, 1001 outside", 5, inUserNamespace(1001, 0)),
		startParty(t, d, "uid 0 of a user namespace and all others", 6, inUserNamespace(1001, unix.CLONE_NEWPID|newNet)),
		startParty(t, d, "uid 0 of a user namespace, 0 outside", 7, inUserNamespace(0, unix.CLONE_NEWPID)),
		startParty(t, d, "a container's root", 8, inContainer(unix.CLONE_NEWPID|newNet)),
		startParty(t, d, "another container's root", 9, inContainer(unix.CLONE_NEWPID|newNet)),
		startParty(t, d, "a container's root in the host's pid namespace", 10, inContainer(newNet)),
		startParty(t, d, "a container's root who has dropped to uid 1000", 11, inContainer(unix.CLONE_NEWPID)),
	}
	dropped := strangers[len(strangers)-1]
	wantErrno(t, "setuid", dropped.Become(1000), nil)
	root.wantSees(append(strangers, root)...)
	for i, u := range strangers {
		if u != dropped { // what it made before is another uid's
			u.wantSees(u)
		}
		u.wantTurnsNothing()
		for _, o := range append(strangers, root) {
			if o != u {
				u.wantNothingOf(o)
			}
		}
		u.wantAttaches(strangers[(i+1)%len(strangers)])
	}
	f, err := os.OpenFile(d.Path("dmb_copy"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, change := range map[string]func(*exec.Cmd){
		"a container": inContainer(unix.CLONE_NEWPID), "one in the host's pid namespace": inContainer(0),
		"a user namespace": inUserNamespace(0, 0), "a uid": asUser(1000),
	} {
		wantErrno(t, "a control's handle inherited by "+name, startClient(t, change, inheriting(f)).Pwrite(3, []byte("1"), 0), unix.EPERM)
	}
	for _, u := range strangers {
		if u != dropped {
			u.wantOwns()
		}
	}
	for _, u := range append(strangers, root) {
		u.Kill()
	}
	for _, token := range []string{root.shell, dropped.shell} {
		wantErrno(t, "root removes", unix.Unlink(d.Path("dmbs", token)), nil)
	}
	d.WantNothing()
}

// TestOneUser: processes of one uid in the same namespaces are one owner: what either makes, both see, and a DMB from a shell
// is both's. A leased one, and a procs block, still have one process that owns them.
func TestOneUser(t *testing.T) {
	d := mountDevice(t)
	a, b := startParty(t, d, "a", 1, asUser(1000)), startParty(t, d, "b", 2, asUser(1000))
	a.wantSees(a, b)
	b.wantSees(a, b)
	wantErrno(t, "a's block", b.readSome(d.Path("procs", a.id)), nil)
	wantErrno(t, "a's leased DMB", b.readSome(d.Path("dmbs", a.leased)), nil)
	for range 3 { // no attachment
		fd := b.MustOpen(d.Path("dmbs", a.shell), readWrite)
		wantErrno(t, "pwrite", b.Pwrite(fd, []byte("b was here"), 32), nil)
	}
	if st, err := a.Fstat(a.shellFD); err != nil || st.Nlink != 1 {
		t.Errorf("st_nlink %d, %v", st.Nlink, err)
	}
	fd := a.MustOpen(d.Path("dmbs", tokenOf(100)), register)
	_, err := b.Syscall(unix.SYS_TRUNCATE, d.Path("dmbs", tokenOf(100)), 4096)
	wantErrno(t, "b gives the size to a's leased DMB", err, unix.EPERM)
	wantErrno(t, "a gives it", a.Truncate(fd, 4096), nil)
	wantErrno(t, "b removes a's DMB", b.Unlink(d.Path("dmbs", a.shell)), nil)
	wantErrno(t, "b removes a's leased DMB", b.Unlink(d.Path("dmbs", a.leased)), nil)
	wantErrno(t, "a removes b's", a.Unlink(d.Path("dmbs", b.shell)), nil)
	a.Kill()
	b.Kill()
	d.WantNothing()
}

// TestDroppedUID: a process that was root and has given that up keeps its secrets from the uid that it has become, as it does
// from ptrace, and stays the owner of what it made.
func TestDroppedUID(t *testing.T) {
	d := mountDevice(t)
	dropped, user := startParty(t, d, "dropped", 1), startParty(t, d, "uid 1000", 2, asUser(1000))
	wantErrno(t, "setuid", dropped.Become(1000), nil)
	user.wantSees(user)
	user.wantNothingOf(dropped)
	names, err := dropped.ReadDir(d.Path("dmbs"))
	if err != nil || !slices.Contains(names, dropped.leased) {
		t.Errorf("it sees %v, %v; not what it leases itself", names, err)
	}
	wantErrno(t, "it removes its own", dropped.Unlink(d.Path("dmbs", dropped.leased)), nil)
}
