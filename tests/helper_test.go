// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// helperDir makes a directory in which the command has the names that mount(8) looks for.
func helperDir(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	for _, name := range []string{"mount.ismfs", "mount.fuse.ismfs"} {
		if err := os.Symlink(filepath.Join(bin, "ismfs"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestMountHelper calls the helper as mount(8) does.
func TestMountHelper(t *testing.T) {
	helpers := helperDir(t)
	for _, name := range []string{"mount.ismfs", "mount.fuse.ismfs"} {
		t.Run(name, func(t *testing.T) {
			helper := filepath.Join(helpers, name)
			point := tempDir(t)
			takeDown(t, point)
			options := "rw,nosuid,nodev,_netdev,x-systemd.automount,max_dmbs=10,max_dmb_size=64K,dmb_copy=1,wait=blocking,mode=0711"
			for _, row := range []struct {
				what string
				args []string
				code int
				word string
			}{
				{"fake", []string{"none", point, "-f", "-o", options}, 0, ""},
				{"bad option", []string{"none", point, "-o", "rw,nonsense=1"}, 1, "nonsense"},
				{"bad value", []string{"none", point, "-o", "dmb_copy=7"}, 1, "dmb_copy"},
				{"bad wait", []string{"none", point, "-o", "wait=never"}, 1, "busy, adaptive or blocking"},
				{"no directory", []string{"none"}, 1, "MOUNTPOINT"},
				{"missing directory", []string{"none", point + "/missing", "-o", "rw"}, 32, "missing"},
				{"mounts", []string{"none", point, "-o", options, "-t", "fuse.ismfs"}, 0, ""},
				{"live", []string{"none", point, "-n", "-v"}, 32, "live"},
			} {
				r := execute(t, nil, helper, row.args...)
				if r.Code != row.code || !strings.Contains(r.Stderr, row.word) {
					t.Fatalf("%s: %+v, want code %d and %q", row.what, r, row.code, row.word)
				}
				if isMounted(t, point) != (row.what == "mounts" || row.what == "live") {
					t.Fatalf("%s: mounted is %v", row.what, isMounted(t, point))
				}
			}
			info := execute(t, nil, "ismfs", "info")
			_, info.Stdout, _ = strings.Cut(info.Stdout, point)
			for _, want := range []string{"dmb_copy 1", "of 10 (", "64 KiB"} {
				if !strings.Contains(info.Stdout, want) {
					t.Errorf("ismfs info does not say %q: %s", want, info.Stdout)
				}
			}
			st, err := os.Stat(point)
			if err != nil || st.Mode().Perm() != 0o711 {
				t.Errorf("the root directory's mode: %v, %v", st.Mode(), err)
			}
			execute(t, nil, "ismfs", "umount", point).want(t, 0)
		})
	}
}

// TestMountCommand goes by mount(8) itself and an fstab line. The helpers lie in /sbin only inside a mount namespace of this
// test's, in an overlay.
func TestMountCommand(t *testing.T) {
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(filesystems), "\toverlay\n") {
		t.Skip("no overlay file system to put the mount helper into /sbin for a while")
	}
	sbin, err := filepath.EvalSymlinks("/sbin")
	if err != nil {
		t.Fatal(err)
	}
	point, helpers := tempDir(t), helperDir(t)
	fstab := filepath.Join(tempDir(t), "fstab")
	for _, row := range []struct{ name, kind, mount string }{
		{"type fuse.ismfs", "fuse.ismfs", `mount -t fuse.ismfs none "$POINT" -o max_dmbs=10,dmb_copy=1`},
		{"type ismfs", "ismfs", `mount -t ismfs none "$POINT" -o max_dmbs=10,dmb_copy=1`},
		{"fstab, fuse.ismfs", "fuse.ismfs", `mount -T "$FSTAB" "$POINT"`},
		{"fstab, ismfs", "ismfs", `mount -T "$FSTAB" "$POINT"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			line := "none " + point + " " + row.kind + " defaults,nofail,max_dmbs=10,dmb_copy=1 0 0\n"
			if err := os.WriteFile(fstab, []byte(line), 0o600); err != nil {
				t.Fatal(err)
			}
			script := inNewMounts + `mount -t overlay -o "lowerdir=$HELPERS:$SBIN" none "$SBIN"
				trap 'umount -l "$POINT"' EXIT
				` + row.mount + `
				cat "$POINT/devices/loopback-ism/dmb_copy"
				grep -o '"max_dmbs":[0-9]*' "$POINT/devices/loopback-ism/stats"
				grep " $POINT " /proc/self/mountinfo | sed 's/.* - //'
				umount "$POINT"
				trap - EXIT`
			r := execute(t, nil, "unshare", "-m", "env", "POINT="+point, "FSTAB="+fstab, "HELPERS="+helpers, "SBIN="+sbin, "sh", "-euc", script)
			r.want(t, 0)
			for _, want := range []string{"1: ", `"max_dmbs":10`, "fuse.ismfs"} {
				if !strings.Contains(r.Stdout, want) {
					t.Errorf("stdout %q does not say %q", r.Stdout, want)
				}
			}
			if isMounted(t, point) {
				t.Error("it was mounted outside the namespace")
			}
		})
	}
}
