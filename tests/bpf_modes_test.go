// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ismfs/ismfs/bpf/smcopt"
)

// TestSocketsOff: the tree without programs, by each way to say so. The set does not learn of the device.
func TestSocketsOff(t *testing.T) {
	for _, args := range [][]string{{"--sockets=off"}, {"-o", "sockets=off"}, {"-o", "rw,sockets=off,dmb_copy=1"}} {
		d := mountDevice(t, args...)
		if err := markFresh(d.Tag()); !errors.Is(err, smcopt.ErrNoDevice) && !errors.Is(err, smcopt.ErrNoPrograms) {
			t.Errorf("%v: a mark: %v", args, err)
		}
		if infoOf(t, d.Point).Sockets {
			t.Errorf("%v: ismfs info says that sockets are covered", args)
		}
		if log := d.log.String(); !strings.Contains(log, "sockets=off") || strings.Contains(log, "level=WARN") {
			t.Errorf("%v: the log says\n%s", args, log)
		}
		c := startClient(t)
		c.Register(d, "00000000000b0f04", 4096)
		c.Kill()
		command(t, "ismfs", "umount", d.Point).want(t, 0)
		d.WaitEnd()
	}
}

func TestSocketsUsage(t *testing.T) {
	dir := tempDir(t)
	for _, args := range [][]string{{"--sockets=maybe"}, {"-o", "sockets=1"}, {"-o", "sockets"}, {"--sockets="}} {
		command(t, "ismfs", append(append([]string{"mount"}, args...), dir)...).want(t, 2, "sockets")
	}
}

// What keeps the option away, in a mount namespace of its own.
var optionObstacles = []struct {
	name, script string
	code         int // with --sockets=require
	words        []string
}{
	{
		"no cgroup v2", `for m in $(findmnt -n -l -o TARGET -t cgroup2); do umount -l $m; done`,
		3, []string{"cgroup v2", "mount -t cgroup2"},
	},
	{
		"the set is in another bpffs", `mount -t bpf none /sys/fs/bpf`,
		1, []string{"another set", "/sys/fs/bpf"},
	},
	{
		"a set of another version", `mount -t bpf none /sys/fs/bpf; mkdir -p /sys/fs/bpf/ismfs/v9`,
		1, []string{"another version", "/sys/fs/bpf/ismfs/v9", "rm -r"},
	},
}

// TestSocketsObstacles: what keeps the option away is said, where it will be read, and the device is mounted all the same;
// unless it is required, and then nothing is.
func TestSocketsObstacles(t *testing.T) {
	mountSMC(t) // with the set that is another one
	log := filepath.Join(tempDir(t), "log")
	for _, o := range optionObstacles {
		for form, options := range map[string]string{
			"background":            "",
			"background with a log": "--log=" + log,
			"mount option":          "-o sockets=auto",
		} {
			t.Run(o.name+", "+form, func(t *testing.T) {
				point := tempDir(t)
				script := inNewMounts + o.script + `
					"$0" mount ` + options + ` "$1"
					"$0" info --json | grep -A12 "$1"
					"$0" umount "$1"`
				r := execute(t, nil, "unshare", "-m", "sh", "-euc", script, filepath.Join(bin, "ismfs"), point)
				r.want(t, 0, append(o.words, "warning", "sockets stay TCP", "doctor")...)
				if n := strings.Count(r.Stderr, "\n"); n != 1 {
					t.Errorf("%d lines on standard error: %s", n, r.Stderr)
				}
				if !strings.Contains(r.Stdout, `"sockets": false`) {
					t.Errorf("ismfs info: %s", r.Stdout)
				}
			})
		}
		for _, form := range []string{"", "--foreground"} {
			t.Run(o.name+", required "+form, func(t *testing.T) {
				point := tempDir(t)
				script := inNewMounts + o.script + `
					"$0" mount --sockets=require ` + form + ` "$1" || code=$?
					grep " $1 " /proc/self/mountinfo || exit ${code:-0}`
				r := execute(t, nil, "unshare", "-m", "sh", "-euc", script, filepath.Join(bin, "ismfs"), point)
				r.want(t, o.code, append(o.words, "sockets=require")...)
			})
		}
		t.Run(o.name+", doctor", func(t *testing.T) {
			script := inNewMounts + o.script + `
				"$0" doctor`
			r := execute(t, nil, "unshare", "-m", "sh", "-euc", script, filepath.Join(bin, "ismfs"))
			r.want(t, 0)
			if !strings.Contains(r.Stdout, "sockets would stay TCP") || !strings.Contains(r.Stdout, o.words[0]) {
				t.Errorf("ismfs doctor: %s", r.Stdout)
			}
		})
	}
}

// TestSocketsSameGID: two devices of one GID cannot be told apart in a SYN. The second one's sockets stay TCP, until the first
// one's daemon has died: then it is its successor.
func TestSocketsSameGID(t *testing.T) {
	const gid = "--device-gid=3d1f8c2e-5a6b-4c7d-8e9f-a0b1c2d3e4f5"
	first := mountDevice(t, gid)
	needOption(t, first)
	tag := first.Tag()
	point := tempDir(t)
	takeDown(t, point)
	command(t, "ismfs", "mount", "--sockets=require", gid, point).want(t, 1, "already")
	command(t, "ismfs", "mount", gid, point).want(t, 0, "warning", "already", tag.String())
	command(t, "ismfs", "umount", point).want(t, 0)
	first.Kill()
	command(t, "ismfs", "mount", "--replace", "--sockets=require", gid, first.Point).want(t, 0)
	startClient(t).wantPair(localhost, tag, toldSMC)
	command(t, "ismfs", "umount", first.Point).want(t, 0)
	waitFor(t, "the tag to go", func() error {
		if err := markFresh(tag); !errors.Is(err, smcopt.ErrNoDevice) && !errors.Is(err, smcopt.ErrNoPrograms) {
			return fmt.Errorf("a mark: %w", err)
		}
		return nil
	})
}
