// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBackground: the plain form returns when the tree answers, and its daemon keeps nothing of the caller's: a script whose
// output is piped, or that holds a lock on a descriptor, goes on.
func TestBackground(t *testing.T) {
	point := tempDir(t)
	takeDown(t, point)
	held, heldToo, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	// As descriptors 3 and 4: the first one's place is taken by the daemon's own pipe.
	inherit := func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{heldToo, heldToo} }
	execute(t, inherit, "ismfs", "mount", point, "--max-dmbs=7").want(t, 0)
	heldToo.Close()
	s, err := readStats(filepath.Join(point, "devices", "loopback-ism"))
	if err != nil {
		t.Fatalf("the command has returned, but the tree does not answer: %v", err)
	}
	if s.MaxDMBs != 7 {
		t.Errorf("max_dmbs is %d: the option has not reached the daemon", s.MaxDMBs)
	}
	proc := fmt.Sprintf("/proc/%d/", s.PID)
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	if f := strings.Fields(rest); f[3] != fmt.Sprint(s.PID) { // state, parent, process group, session
		t.Errorf("the daemon, pid %d, is in session %s", s.PID, f[3])
	}
	for link, want := range map[string]string{"fd/0": os.DevNull, "fd/1": os.DevNull, "fd/2": os.DevNull, "cwd": "/"} {
		if target, err := os.Readlink(proc + link); target != want {
			t.Errorf("the daemon's %s is %q, %v; want %s", link, target, err, want)
		}
	}
	held.SetReadDeadline(time.Now().Add(patience))
	if n, err := held.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the daemon keeps a pipe of the caller's open: read %d, %v", n, err)
	}
	execute(t, nil, "ismfs", "umount", point).want(t, 0)
	waitGone(t, s.PID)
}

// TestMountTwiceAtOnce: of several that start at once on one mount point one wins, and the others say why they do not.
func TestMountTwiceAtOnce(t *testing.T) {
	point := tempDir(t)
	takeDown(t, point)
	for range 20 { // what can go wrong takes a moment to meet
		results := make([]result, 6)
		var all sync.WaitGroup
		for i := range results {
			all.Go(func() { results[i] = execute(t, nil, "ismfs", "mount", point) })
		}
		all.Wait()
		won := 0
		for _, r := range results {
			switch r.Code {
			case 0:
				won++
			case 6:
				if !strings.Contains(r.Stderr, point) {
					t.Errorf("stderr %q does not name the mount point", r.Stderr)
				}
			default:
				t.Errorf("%+v", r)
			}
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if n := strings.Count(string(table), " "+point+" "); err != nil || won != 1 || n != 1 {
			t.Fatalf("%d won, %d are mounted, %v", won, n, err)
		}
		execute(t, nil, "ismfs", "umount", point).want(t, 0)
	}
}

// inNewMounts begins a script for a mount namespace of its own: what it mounts stays there.
const inNewMounts = "mount --make-rprivate / && "

// TestMountErrors: whatever keeps a mount from being made is said on the caller's standard error, though the daemon may have
// found it, with the exit code that the documentation promises. Nothing is left mounted.
func TestMountErrors(t *testing.T) {
	live := mountDevice(t)
	dead := mountDevice(t)
	dead.Kill()
	dir := tempDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := tempDir(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(live.Point, link); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		args  []string
		who   func(*exec.Cmd)
		code  int
		words []string
	}{
		{"missing", []string{dir + "/missing"}, nil, 5, []string{dir + "/missing", "mkdir"}},
		{"parent missing", []string{dir + "/missing/x"}, nil, 5, []string{dir + "/missing"}},
		{"a file", []string{file}, nil, 5, []string{file, "not a directory"}},
		{"not empty", []string{dir}, nil, 5, []string{dir, "not empty"}},
		{"live", []string{live.Point}, nil, 6, []string{live.Point, "live"}},
		{"live, by a link", []string{link}, nil, 6, []string{live.Point, "live"}},
		{"live, replace", []string{"--replace", live.Point}, nil, 6, []string{live.Point, "live"}},
		{"dead", []string{dead.Point}, nil, 5, []string{dead.Point, "--replace"}},
		{"no mount point", nil, nil, 2, []string{"MOUNTPOINT", "ismfs mount --help"}},
		{"two mount points", []string{empty, dir}, nil, 2, []string{"MOUNTPOINT", "ismfs mount --help"}},
		{"unknown option", []string{"--nonsense", empty}, nil, 2, []string{"nonsense", "ismfs mount --help"}},
		{"unknown mount option", []string{"-o", "nonsense", empty}, nil, 2, []string{"nonsense"}},
		{"option without its value", []string{"-o", "max_dmbs", empty}, nil, 2, []string{"max_dmbs"}},
		{"max_dmbs 0", []string{"--max-dmbs=0", empty}, nil, 2, []string{"max_dmbs"}},
		{"max_dmbs negative", []string{"-o", "max_dmbs=-1", empty}, nil, 2, []string{"max_dmbs"}},
		{"dmb_type 2", []string{"--dmb-type=2", empty}, nil, 2, []string{"dmb_type"}},
		{"dmb_copy 2", []string{"-o", "dmb_copy=2", empty}, nil, 2, []string{"dmb_copy"}},
		{"size unaligned", []string{"-o", "max_dmb_size=4097", empty}, nil, 2, []string{"max_dmb_size"}},
		{"size overflows", []string{"--max-bytes=99999999999G", empty}, nil, 2, []string{"max-bytes"}},
		{"uid's share over all", []string{"--max-bytes=1M", "--max-bytes-per-uid=2M", empty}, nil, 2, []string{"max_bytes_per_uid"}},
		{"mode not octal", []string{"--mode=0888", empty}, nil, 2, []string{"mode"}},
		{"no GID", []string{"--device-gid=1-2-3", empty}, nil, 2, []string{"device-gid"}},
		{"two points", []string{empty, dir}, nil, 2, nil},
		{"no point", nil, nil, 2, nil},
		{"not root", []string{empty}, user(1234), 4, []string{"ismfs:"}},
		{"no such log", []string{"--log", dir + "/missing/log", empty}, nil, 1, []string{"--log", dir + "/missing/log"}},
	} {
		for _, form := range []string{"background", "foreground"} {
			t.Run(row.name+", "+form, func(t *testing.T) {
				args := append([]string{"mount"}, row.args...)
				if form == "foreground" {
					args = append(args, "--foreground")
				}
				execute(t, row.who, "ismfs", args...).want(t, row.code, row.words...)
				for _, point := range []string{dir, empty} {
					if isMounted(t, point) {
						t.Fatalf("something is mounted on %s", point)
					}
				}
			})
		}
	}
	if live.Read("active") != "1" {
		t.Error("the live device has been touched")
	}
}

// TestMountWithoutFUSE and the next take away what the daemon needs, in a mount namespace of their own.
func TestMountWithoutFUSE(t *testing.T) {
	point := tempDir(t)
	for _, form := range []string{"", "--foreground"} {
		script := inNewMounts + `mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$0" mount ` + form + ` "$1"`
		execute(t, nil, "unshare", "-m", "sh", "-euc", script, filepath.Join(bin, "ismfs"), point).want(t, 3, "/dev/fuse", "doctor")
	}
}

// TestMountInUserNamespace: root of a user namespace may mount FUSE, but not register backing files. Then nothing must stay
// mounted, or programs would find DMBs that only look shared.
func TestMountInUserNamespace(t *testing.T) {
	if r := execute(t, nil, "unshare", "-Ur", "-m", "true"); r.Code != 0 {
		t.Skipf("no user namespaces: %s", r.Stderr)
	}
	point := tempDir(t)
	for _, form := range []string{"", "--foreground"} {
		script := `"$0" mount ` + form + ` "$1" || code=$?; grep " $1 " /proc/self/mountinfo; exit ${code:-0}`
		r := execute(t, nil, "unshare", "-Ur", "-m", "sh", "-c", script, filepath.Join(bin, "ismfs"), point)
		r.want(t, 4, "passthrough", "CAP_SYS_ADMIN")
		if r.Stdout != "" {
			t.Errorf("it is mounted: %s", r.Stdout)
		}
	}
}
