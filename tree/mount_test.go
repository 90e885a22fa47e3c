// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParseMountinfo(t *testing.T) {
	text, err := os.ReadFile("testdata/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseMountinfo(string(text))
	if err != nil {
		t.Fatal(err)
	}
	rootOnly := []string{"rw", "user_id=0"}
	want := []Mount{
		{"/run/ismfs", "ismfs", "0:40", []string{"rw", "nosuid", "nodev", "relatime"},
			[]string{"rw", "user_id=0", "group_id=0", "allow_other"}},
		{"/home/a b\\c\td", "", "0:41", []string{"rw", "nosuid", "nodev"}, []string{"rw", "user_id=1000", "group_id=1000"}},
		{"/srv/stacked", "above", "0:43", []string{"ro", "nosuid"}, rootOnly},
		{"/sys/deep/tree", "deep", "0:47", []string{"rw"}, rootOnly},
		{"/var/lib/bound", "ismfs", "0:40", []string{"rw"}, rootOnly},
	}
	if len(got) != len(want) {
		t.Fatalf("found %d mounts, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("mount %d:\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
}

func TestParseMountinfoRejects(t *testing.T) {
	for _, line := range []string{
		"\n",
		"1 2 0:1 / / rw fuse.ismfs ismfs rw\n", // no dash
		"1 2 0:1 / / - fuse.ismfs ismfs rw\n",  // no options
		"1 2 0:1 / / rw - fuse.ismfs ismfs\n",  // no super options
		"x 2 0:1 / / rw - fuse.ismfs ismfs rw\n",
		"1 y 0:1 / / rw - fuse.ismfs ismfs rw\n",
	} {
		if _, err := parseMountinfo(line); err == nil || !strings.Contains(err.Error(), "mountinfo line") {
			t.Errorf("%q: error %v", line, err)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`plain`:          "plain",
		`\040\011\012`:   " \t\n",
		`a\134040`:       `a\040`,
		`\043`:           "#",
		`short\04`:       `short\04`,
		`\999`:           `\999`,
		`\777`:           `\777`, // more than a byte
		`trailing\`:      `trailing\`,
		`\303\244\040\\`: "\u00e4 \\\\",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseMountinfo(f *testing.F) {
	text, err := os.ReadFile("testdata/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("1 2 0:1 / /a rw - fuse.ismfs - rw\n2 1 0:1 / /b rw - tmpfs - rw\n") // two that are each other's parents
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMountinfo(text)
		if err != nil && mounts != nil {
			t.Errorf("mounts beside the error %v: %v", err, mounts)
		}
	})
}
