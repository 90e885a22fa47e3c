// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestChoose(t *testing.T) {
	a := Mount{Point: "/a", Dev: "0:1"}
	b := Mount{Point: "/b", Dev: "0:2"}
	boundA := Mount{Point: "/bound-a", Dev: "0:1"}
	dead := Mount{Point: "/dead", Dev: "0:3"}
	alive := func(m Mount) error {
		if m.Point == dead.Point {
			return errDead(m.Point, syscall.ENOTCONN)
		}
		return nil
	}
	for _, c := range []struct {
		name   string
		mounts []Mount
		want   string
		err    error
		says   []string // parts of the error's text
	}{
		{"none", nil, "", ErrNoMount, []string{"ismfs mount DIR"}},
		{"one", []Mount{a}, "/a", nil, nil},
		{"one device at two points", []Mount{a, boundA}, "/a", nil, nil},
		{"two", []Mount{a, boundA, b}, "", ErrSeveralMounts, []string{"/a, /b;", "ISMFS_MOUNT="}},
		{"a dead one aside", []Mount{dead, b}, "/b", nil, nil},
		{"only a dead one", []Mount{dead}, "", ErrDeadMount, []string{"`ismfs mount --replace /dead`"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := choose(c.mounts, alive)
			if !errors.Is(err, c.err) || m.Point != c.want {
				t.Fatalf("chose %q, %v; want %q, %v", m.Point, err, c.want, c.err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestDeadMountKeepsErrno(t *testing.T) {
	if err := errDead("/x", syscall.ENOTCONN); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("%v hides its errno", err)
	}
}
