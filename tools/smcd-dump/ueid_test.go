// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/tree/treetest"
)

// A fake tree keeps what is written instead of acting on it, which shows what a device would be told.
func TestUEIDChanges(t *testing.T) {
	for args, want := range map[string]string{
		"ueid add SITE-A":          "+SITE-A\n",
		"u a SITE-A":               "+SITE-A\n",
		"ueid del SITE-A":          "-SITE-A\n",
		"ueid flush":               "-ISMFS-DEFAULT-UEID\n",
		"ueid add 0123456789.ABC-": "+0123456789.ABC-\n",
		"ueid add --json SITE-A":   "+SITE-A\n",
	} {
		t.Run(args, func(t *testing.T) {
			mount := treetest.New(t, nil)
			stdout, stderr, err := run(append(strings.Fields(args), "--mount", mount)...)
			if err != nil || stderr != "" {
				t.Fatalf("%v, stderr %q", err, stderr)
			}
			if (stdout != "") != strings.Contains(args, "--json") {
				t.Errorf("printed %q", stdout)
			}
			told, err := os.ReadFile(filepath.Join(mount, "devices/loopback-ism/ueid"))
			if err != nil || string(told) != want {
				t.Errorf("the device was told %q, %v; want %q", told, err, want)
			}
		})
	}
}

func TestParseUEID(t *testing.T) {
	long := strings.Repeat("A", maxEIDLen)
	for _, c := range []struct{ in, want, says string }{
		{"A", "A", ""},
		{"1.A-", "1.A-", ""},
		{long, long, ""},
		{"PADDED   ", "PADDED", ""},
		{"", "", "EID is empty"},
		{"   ", "", "EID is empty"},
		{long + "A", "", "EID is longer than 32 characters"},
		{".A", "", "first character must be alphanumeric"},
		{"-A", "", "first character must be alphanumeric"},
		{"_A", "", "first character must be alphanumeric"},
		{" A", "", "first character must be alphanumeric"},
		{"A..B", "", "consecutive dots not allowed"},
		{"a", "", "unsupported character: 'a'"},
		{"A b", "", "unsupported character: ' '"},
		{"A\u00c4", "", "unsupported character: '\u00c4'"},
		{"A\nB", "", `unsupported character: '\n'`},
	} {
		got, err := parseUEID(c.in)
		if got != c.want || (err == nil) != (c.says == "") {
			t.Errorf("parseUEID(%q) = %q, %v; want %q", c.in, got, err, c.want)
			continue
		}
		if err != nil && !strings.HasPrefix(err.Error(), "Invalid User EID specified: "+c.says) {
			t.Errorf("parseUEID(%q): error %q does not say %q", c.in, err, c.says)
		}
	}
}

func TestExplain(t *testing.T) {
	meanings := map[syscall.Errno]string{syscall.EEXIST: "specified User EID is already defined"}
	wrapped := func(errno syscall.Errno) error { return &os.PathError{Op: "write", Path: "/m/ueid", Err: errno} }
	if err := explain(nil, meanings); err != nil {
		t.Errorf("nil became %v", err)
	}
	if err := explain(wrapped(syscall.EEXIST), meanings); err.Error() != meanings[syscall.EEXIST] {
		t.Errorf("EEXIST became %v", err)
	}
	if err := explain(wrapped(syscall.EPERM), meanings); !errors.Is(err, fs.ErrPermission) ||
		!strings.HasPrefix(err.Error(), "changing the User EIDs takes the privileges") {
		t.Errorf("EPERM became %v", err)
	}
	if err := explain(wrapped(syscall.EIO), nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("EIO became %v", err)
	}
}
