// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/tree"
)

func newUmountCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:     "umount MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "Take a tree down",
		Long: strings.TrimSpace(`
Unmounts a tree and so ends its device. While there are connections, DMBs are leased to programs, or files in the tree are
open, it refuses and says which processes they belong to and what to do; --force switches the device off, which aborts every
connection, and then unmounts. Programs that listen, or whose connections have ended, do not hinder it: they go on with TCP. The
daemon ends when they have let go of what they keep for their next connection.

To end a device without breaking anything: echo drain > MOUNTPOINT/devices/loopback-ism/active, wait, umount.`),
		Args: oneArg,
		RunE: func(_ *cobra.Command, args []string) error { return umount(args[0], force) },
	}
	c.Flags().BoolVar(&force, "force", false, "abort all connections and unmount in any case")
	return c
}

func umount(point string, force bool) error {
	point, err := resolve(point)
	if err != nil {
		return err
	}
	m, mounted, err := mountAt(point)
	if err != nil {
		return err
	}
	if !mounted { // but the last daemon that was can have left programs, for sockets that have gone since
		removeIdlePrograms()
		return withCode(exitNotMounted, fmt.Errorf("no ismfs is mounted on %s (ismfs info lists what is)", point))
	}
	if errors.Is(m.Alive(), unix.ENOTCONN) { // the daemon is dead: what was there has ended already
		if err := detach(point); err != nil {
			return err
		}
		removeIdlePrograms()
		return nil
	}
	if force {
		return forceUmount(point)
	}
	d, err := tree.Find(point)
	if err != nil {
		return notPermitted(err)
	}
	return idleUmount(d, point)
}

// idleUmount unmounts unless there are connections. The kernel refuses while anything is open under this mount, so nothing
// comes in between; but it knows nothing of DMBs that are open under a copy of the mount in another mount namespace, so the
// device is asked, too. And programs keep their procs block open, and for ten minutes the DMBs of connections that have ended:
// they are told to let go, and without a connection they keep nobody, also where they sleep and do not hear it.
func idleUmount(d *tree.Device, point string) error {
	if len(leases(d, all)) == 0 && unix.Unmount(point, unix.UMOUNT_NOFOLLOW) == nil {
		return nil
	}
	before, err := d.Active()
	if err == nil && (carries(d) || len(openers(point, "")) > 0) {
		return inUse(point, before)
	}
	if err == nil && before == tree.Active {
		err = d.SetActive(tree.Draining)
	}
	if err != nil {
		return notAllowed(point, err)
	}
	waitFor(func() bool { return len(leases(d, all)) == 0 })
	if !carries(d) && len(leases(d, withoutBlock)) == 0 && len(openers(point, "")) == 0 {
		if err := d.SetActive(tree.Inactive); err != nil { // withdraws what sleepers keep
			return notAllowed(point, err)
		}
		return detach(point)
	}
	why := inUse(point, before)
	if before == tree.Active {
		err = d.SetActive(tree.Active)
	}
	return errors.Join(why, err)
}

// notAllowed says who may unmount, if that is what err is about.
func notAllowed(point string, err error) error {
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return withCode(exitNotPermitted, fmt.Errorf("not permitted to unmount %s: run as root (sudo ismfs umount %[1]s)", point))
	}
	return fmt.Errorf("umount of %s: %w", point, err)
}

// carries reports whether the device carries connections, as far as the caller may see them.
func carries(d *tree.Device) bool {
	conns, err := d.Conns()
	return err == nil && slices.ContainsFunc(conns, func(c tree.Conn) bool { return c.Mode == tree.ModeSMCD })
}

// inUse says what keeps a mount in this state in use, and what to do.
func inUse(point string, state tree.State) error {
	var dmbs []string
	if d, err := tree.Find(point); err == nil {
		dmbs = leases(d, all)
	}
	files := openers(point, strings.Join(dmbs, "\n"))
	return withCode(exitInUse, fmt.Errorf("%s is in use:\n%s", point, refusal(point, state, dmbs, files)))
}

// refusal lists DMBs and then files that are in use, a line each, and says for either how to end that.
func refusal(point string, state tree.State, dmbs, files []string) string {
	lines := slices.Concat(dmbs, files)
	var ways []string
	if len(lines) == 0 {
		lines = []string{"by programs that this user cannot see"}
		ways = append(ways, "look as root: sudo ismfs umount "+point)
	}
	switch {
	case len(dmbs) > 0 && state == tree.Draining:
		ways = append(ways, "the device drains: wait until connections end by themselves")
	case len(dmbs) > 0:
		ways = append(ways, fmt.Sprintf("echo drain > %s/devices/%s/active lets connections end by themselves", point, tree.DeviceName))
	}
	if len(files) > 0 {
		ways = append(ways, "have the processes above close their files, leave the directory (cd /) or end (kill PID)")
	}
	ways = append(ways, "--force aborts every connection and unmounts in any case")
	return "  " + strings.Join(lines, "\n  ") + "\n" + strings.Join(ways, "; ")
}

// waitFor gives programs a moment to let go.
func waitFor(done func() bool) {
	const patience, step = time.Second, 20 * time.Millisecond
	for waited := time.Duration(0); waited < patience && !done(); waited += step {
		time.Sleep(step)
	}
}

func detach(point string) error {
	if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return notPermitted(fmt.Errorf("umount of %s: %w", point, err))
	}
	return nil
}

// forceUmount switches the device off and gives programs a moment to let go before it detaches the tree.
func forceUmount(point string) error {
	d, err := tree.Find(point)
	if err == nil {
		err = d.SetActive(tree.Inactive)
	}
	if err != nil {
		return notAllowed(point, err)
	}
	waitFor(func() bool { return len(leases(d, all)) == 0 })
	return detach(point)
}

// all and withoutBlock say of whose DMBs to speak, by the owner's pid. Who has a procs block has DMBs for connections, which are
// listed.
func all(int) bool              { return true }
func withoutBlock(pid int) bool { return !hasBlock(usesOf(fmt.Sprintf("/proc/%d", pid))) }

// leases describes the leased DMBs that the caller may see.
func leases(d *tree.Device, of func(pid int) bool) []string {
	tokens, err := d.DMBs()
	if err != nil {
		return []string{err.Error()}
	}
	pids := make(map[uint32]int)
	told := make(map[uint32]bool) // of an owner, whether to speak of it
	if stats, err := d.Stats(); err == nil {
		for _, p := range stats.Device.Processes {
			pids[p.ID] = p.PID
		}
	}
	var lines []string
	for _, token := range tokens {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(d.Dir(), "dmbs", token), &st); err != nil {
			continue // gone meanwhile
		}
		owner := uint32(st.Ino >> 32)
		if owner == 0 {
			continue // made from a shell: it is in nobody's way
		}
		if _, asked := told[owner]; !asked {
			told[owner] = of(pids[owner])
		}
		if !told[owner] {
			continue
		}
		peer := "no peer"
		if st.Nlink > 1 {
			peer = "a peer attached"
		}
		lines = append(lines, fmt.Sprintf("DMB %s, %d bytes, of %s, uid %d, %s", token, st.Size, processName(pids[owner]), st.Uid, peer))
	}
	return lines
}

// openers finds processes that have a file, directory or working directory of the tree open, or have it mapped. It passes over
// DMBs that leases, the lines before, names.
func openers(point, leases string) []string {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var lines []string
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		uses := usesOf(dir)
		known := hasBlock(uses)
		for _, u := range uses {
			inside := u.path == point || strings.HasPrefix(u.path, point+"/")
			name := strings.TrimSuffix(filepath.Base(u.path), " (deleted)")
			if inside && !(known && u.isFile()) && !strings.Contains(leases, "DMB "+name+",") {
				lines = append(lines, processName(pid)+" "+u.String())
			}
		}
	}
	return lines
}

// processName is a pid, with the command's name where that is to be had.
func processName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("pid %d (%s)", pid, strings.TrimSuffix(string(name), "\n"))
}

// isBlock reports whether a path is a procs block's. Every program that has used the device keeps its block, and needs no
// daemon for it.
func isBlock(path string) bool {
	return filepath.Base(filepath.Dir(path)) == "procs" && strings.HasSuffix(filepath.Dir(filepath.Dir(path)), "/"+tree.DeviceName)
}

func hasBlock(uses []use) bool {
	return slices.ContainsFunc(uses, func(u use) bool { return isBlock(u.path) })
}

// A use is how a process keeps a file busy.
type use struct {
	path, how string
}

// isFile is false of a directory that a process is in.
func (u use) isFile() bool { return u.how == "open" || u.how == "mapped" }

func (u use) String() string { return "has " + u.path + " " + u.how }

// usesOf returns what a process, given by its directory in /proc, keeps busy, each once. A mapping counts as long as it lasts,
// also after its file was closed.
func usesOf(process string) []use {
	var uses []use
	add := func(how, pattern string) {
		links, _ := filepath.Glob(process + pattern) // a good pattern: no error
		for _, link := range links {
			path, err := os.Readlink(link)
			if err == nil && !slices.ContainsFunc(uses, func(u use) bool { return u.path == path }) {
				uses = append(uses, use{path, how})
			}
		}
	}
	add("as its working directory", "/cwd")
	add("as its root directory", "/root")
	add("open", "/fd/*")
	add("mapped", "/map_files/*")
	return uses
}
