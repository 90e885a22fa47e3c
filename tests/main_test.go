// SPDX-License-Identifier: Apache-2.0

// Package tests drives the built binaries as a user would: on real mounts, from separate processes, under other uids and in
// other namespaces. Nothing here uses the daemon's packages.
package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ismfs/ismfs/bpf/bpftest"
	"github.com/ismfs/ismfs/tree"
)

// bin is the directory of the built commands.
var bin string

func TestMain(m *testing.M) {
	if os.Getenv(clientVariable) != "" {
		runClient()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if err := missing(); err != nil {
		if os.Getenv("CI") != "" {
			fmt.Fprintln(os.Stderr, "tests: CI must have it:", err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "tests: skipped:", err)
		return 0
	}
	if err := bpftest.Share(); err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "ismfs-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // clients of other uids come here too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	if err := provideCommands(); err != nil {
		fmt.Fprintln(os.Stderr, "tests: the commands:", err)
		return 1
	}
	if os.Getenv("CI") != "" {
		if err := clearMounts(); err != nil {
			fmt.Fprintln(os.Stderr, "tests: CI must have no other device:", err)
			return 1
		}
	}
	return m.Run()
}

// clearMounts detaches the mounts that a killed run has left, and returns an error if another device lives: commands would find it in place
// of the tests', and its eBPF programs see the tests' sockets. Outside CI the tests that mind are skipped.
func clearMounts() error {
	mounts, err := tree.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.Alive(); err == nil {
			return fmt.Errorf("an ismfs is mounted on %s: ismfs umount %[1]s", m.Point)
		} else if !errors.Is(err, tree.ErrDeadMount) {
			return err
		}
		if out, err := exec.Command(filepath.Join(bin, "ismfs"), "umount", m.Point).CombinedOutput(); err != nil {
			return fmt.Errorf("umount of the dead mount on %s: %w: %s", m.Point, err, out)
		}
	}
	return nil
}

// provideCommands puts the commands where every uid can run them: those of ISMFS_TEST_BIN, which the Makefile builds as the
// user where the tests themselves run under sudo, else fresh ones.
func provideCommands() error {
	from := os.Getenv("ISMFS_TEST_BIN")
	if from != "" {
		return exec.Command("cp", append(ofPrograms(from), filepath.Join(from, "ismfs"), filepath.Join(from, "smcd-dump"), bin)...).Run()
	}
	run := exec.Command("make", "-s", "-C", "..", "preload-test", "BIN="+bin)
	run.Stderr = os.Stderr
	if err := run.Run(); err != nil {
		return err
	}
	args := []string{"build", "-o", bin + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/ismfs", "../tools/smcd-dump")...)
	build.Stderr = os.Stderr
	return build.Run()
}

// ofPrograms are what tests of smc_run need (make preload-test), in a directory.
func ofPrograms(dir string) (paths []string) {
	for _, name := range []string{"smc_run", "libsmc-preload.so", "smc-run-test", "smc-run-test-fortified", "smc-run-stress", "smc-run-mixed", "smc-run-parts"} {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

// missing says what these tests need and this machine does not have.
func missing() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("mounting needs root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
