// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tree_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ismfs/ismfs/tree"
	"github.com/ismfs/ismfs/tree/treetest"
)

func TestFindGiven(t *testing.T) {
	point := treetest.New(t, nil)
	t.Setenv(tree.EnvMount, "off") // a point that is given goes before it
	d, err := tree.Find(point)
	if err != nil {
		t.Fatal(err)
	}
	if d.Point() != point || d.Dir() != point+"/devices/loopback-ism" {
		t.Errorf("found %s with the device in %s, want %s", d.Point(), d.Dir(), point)
	}
}

func TestFindRelative(t *testing.T) {
	point := treetest.New(t, nil)
	t.Chdir(filepath.Dir(point))
	d, err := tree.Find(filepath.Base(point))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	if _, err := d.GID(); err != nil {
		t.Errorf("lost after a change of directory: %v", err)
	}
}

func TestFindByEnvironment(t *testing.T) {
	point := treetest.New(t, nil)
	t.Setenv(tree.EnvMount, point)
	if d, err := tree.Find(""); err != nil || d.Point() != point {
		t.Errorf("found %v, %v, want %s", d, err, point)
	}
	t.Setenv(tree.EnvMount, "off")
	if _, err := tree.Find(""); !errors.Is(err, tree.ErrOff) {
		t.Errorf("switched off: error %v", err)
	}
}

func TestFindNothing(t *testing.T) {
	empty := t.TempDir()
	file := filepath.Join(empty, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{empty, file, filepath.Join(empty, "missing")} {
		_, err := tree.Find(point)
		if !errors.Is(err, tree.ErrNoMount) || !strings.Contains(err.Error(), "`ismfs mount "+point+"`") {
			t.Errorf("%s: error %v", point, err)
		}
	}
}

func TestFindForbidden(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs a user who is not root: root may read everything")
	}
	point := treetest.New(t, nil)
	if err := os.Chmod(filepath.Join(point, "devices"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(point, "devices"), 0o755) })
	if _, err := tree.Find(point); !errors.Is(err, fs.ErrPermission) || !errors.Is(err, syscall.EACCES) {
		t.Errorf("error %v", err)
	}
}
