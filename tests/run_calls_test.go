// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunCalls: a program of ours that makes every call that there is on sockets, and finds what TCP would have given.
func TestRunCalls(t *testing.T) {
	t.Parallel()
	testCallsPlain(t, "smc-run-test")
	inBothCopyModesOf(t, func(t *testing.T, d *device) { d.testCalls("smc-run-test") })
}

// TestRunCallsSix: the same over IPv6. How a DMB is written has nothing to do with addresses, so once is enough.
func TestRunCallsSix(t *testing.T) {
	t.Parallel()
	needIPv6(t)
	testCallsInOneMode(t, "smc-run-test", "six")
}

// TestRunCallsFortified: the same by the names that _FORTIFY_SOURCE and _FILE_OFFSET_BITS=64 give to the calls, which have nothing to do
// with how a DMB is written either.
func TestRunCallsFortified(t *testing.T) {
	t.Parallel()
	testCallsInOneMode(t, "smc-run-test-fortified")
}

func testCallsInOneMode(t *testing.T, name string, args ...string) {
	testCallsPlain(t, name, args...)
	t.Run("SMC", func(t *testing.T) {
		t.Parallel()
		mountSMC(t).testCalls(name, args...)
	})
}

// testCallsPlain shows that what the program wants is what TCP gives.
func testCallsPlain(t *testing.T, name string, args ...string) {
	t.Run("TCP", func(t *testing.T) {
		t.Parallel()
		d := mountSMC(t)
		d.wantPlain(func() { d.run(asItIs, append([]string{filepath.Join(bin, name)}, args...)...) })
	})
}

func (d *device) testCalls(name string, args ...string) {
	d.t.Helper()
	program := append([]string{filepath.Join(bin, name)}, args...)
	before := d.xferBytes()
	var out string
	d.wantSMC(-1, func() { out = d.run(underRun, program...) })
	var bytes int64
	if _, err := fmt.Sscanf(out, "bytes %d", &bytes); err != nil {
		d.t.Fatalf("it prints %q", out)
	}
	if grown := d.xferBytes() - before; grown != bytes {
		d.t.Errorf("it has written %d bytes, xfer_bytes grew by %d", bytes, grown)
	}
	d.WantCount(0)
	if conns := d.Read("conns"); conns != "" {
		d.t.Errorf("conns still has\n%s", conns)
	}
}

// TestRunHandlers: a signal handler reads or writes the connection that its thread is reading or writing, or ends the program (preload/test/handlers.c).
func TestRunHandlers(t *testing.T) {
	t.Parallel()
	inBothCopyModesOf(t, func(t *testing.T, d *device) {
		program := filepath.Join(bin, "smc-run-test")
		d.wantPlain(func() { d.run(asItIs, program, "handlers") })
		d.wantSMC(-1, func() { d.run(underRun, program, "handlers") })
		d.WantCount(0)
		if conns := d.Read("conns"); conns != "" {
			t.Errorf("conns still has\n%s", conns)
		}
	})
}

// TestRunLauncher: smc_run's options and messages.
func TestRunLauncher(t *testing.T) {
	for _, row := range []struct {
		args         string
		code         int
		stdout, says string
	}{
		{"", 1, "", "smc_run: Error: Missing command parameter (smc_run -h shows what there is)\n"},
		{"-r 12x true", 1, "", "smc_run: Error: Invalid buffer size specified: '12x' (bytes, or a number with k or m)\n"},
		{"-t k true", 1, "", "smc_run: Error: Invalid buffer size specified: 'k' (bytes, or a number with k or m)\n"},
		{"-q true", 1, "", "smc_run: Error: Invalid option: -q (smc_run -h shows what there is)\n"},
		{"true", 0, "", ""},
		{"sh -c exit\\ 7", 7, "", ""},
		{"-d -r 1m -t 64k printenv SMC_DEBUG SMC_RCVBUF SMC_SNDBUF", 0, "1\n1m\n64k\n", ""},
	} {
		args := strings.Split(strings.ReplaceAll(row.args, "\\ ", "\x00"), " ")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\x00", " ")
		}
		if row.args == "" {
			args = nil
		}
		r := command(t, "smc_run", args...)
		if r.Code != row.code || r.Stdout != row.stdout || r.Stderr != row.says {
			t.Errorf("smc_run %s: exit code %d, %q, %q", row.args, r.Code, r.Stdout, r.Stderr)
		}
	}
	if r := command(t, "smc_run", "-h"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "Usage: smc_run [ OPTIONS ] COMMAND\n") {
		t.Errorf("-h: %+v", r)
	}
	if r := command(t, "smc_run", "-v"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "smc_run utility, ") {
		t.Errorf("-v: %+v", r)
	}
	if r := command(t, "smc_run", "printenv", "LD_PRELOAD"); !strings.HasSuffix(r.Stdout, "/libsmc-preload.so\n") {
		t.Errorf("LD_PRELOAD: %+v", r)
	}
}

// TestRunTellsApart: smc_run -d names the programs that stay TCP, and why; and no others.
func TestRunTellsApart(t *testing.T) {
	setuid, own := filepath.Join(tempDir(t), "setuid"), filepath.Join(tempDir(t), "own")
	for program, owner := range map[string]int{setuid: 65534, own: os.Getuid()} {
		b, err := os.ReadFile("/bin/true")
		if err == nil {
			err = os.WriteFile(program, b, 0o755)
		}
		if err == nil {
			err = os.Chown(program, owner, -1)
		}
		if err == nil {
			err = os.Chmod(program, 0o755|os.ModeSetuid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	goProgram := filepath.Join(bin, "ismfs")
	for _, row := range []struct{ program, argument, says string }{
		{setuid, "", "smc_run: " + setuid + " is setuid or setgid: its connections stay TCP. "},
		{own, "", ""},
		{goProgram, "version", "smc_run: " + goProgram + " is a Go program: its connections stay TCP. "},
		{"true", "", ""},
		{"sh", "-c true", ""},
	} {
		r := command(t, "smc_run", append([]string{"-d", row.program}, strings.Fields(row.argument)...)...)
		if r.Code != 0 || row.says == "" && r.Stderr != "" || !strings.HasPrefix(r.Stderr, row.says) || strings.Count(r.Stderr, "\n") > 1 {
			t.Errorf("smc_run -d %s: exit code %d, %q; want %q", row.program, r.Code, r.Stderr, row.says)
		}
	}
	if r := command(t, "smc_run", goProgram, "version"); r.Stderr != "" {
		t.Errorf("without -d it says %q", r.Stderr)
	}
}
