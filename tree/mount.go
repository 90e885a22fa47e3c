// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// fsType is what the kernel calls an ismfs mount: FUSE with the subtype ismfs.
const fsType = "fuse.ismfs"

// A Mount is an ismfs tree in this process's mount namespace, as /proc/self/mountinfo describes it.
type Mount struct {
	Point        string   // where it is mounted
	Source       string   // what the mounter called its source
	Dev          string   // "major:minor", the same for all mount points of one device
	Options      []string // of this mount point: "rw", "nosuid", …
	SuperOptions []string // of the file system: "user_id=0", "allow_other", …
}

// A mountEntry is one line of mountinfo; proc_pid_mountinfo(5) describes the fields.
type mountEntry struct {
	Mount
	id, parent int
	root       string // the part of the file system that is mounted
	fsType     string
}

// parseMountinfo returns the ismfs trees that text, in the form of /proc/self/mountinfo, shows: whole ones, which a path
// leads to.
func parseMountinfo(text string) ([]Mount, error) {
	var table []mountEntry
	for line := range strings.Lines(text) {
		e, err := parseEntry(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		table = append(table, e)
	}
	var mounts []Mount
	for _, e := range table {
		if e.fsType == fsType && e.root == "/" && !hidden(e, table) {
			mounts = append(mounts, e.Mount)
		}
	}
	return mounts, nil
}

// parseEntry reads one line:
//
//	36 35 98:0 /root /point rw,noatime master:1 … - type source rw,errors=continue
//	id parent dev            options   optional       type source super options
//
// Single blanks separate the fields, since a source may be empty.
func parseEntry(line string) (mountEntry, error) {
	f := strings.Split(line, " ")
	dash := slices.Index(f, "-")
	if dash < 6 || len(f) < dash+4 {
		return mountEntry{}, fmt.Errorf("mountinfo line %q: fields are missing", line)
	}
	id, err := strconv.Atoi(f[0])
	if err != nil {
		return mountEntry{}, fmt.Errorf("mountinfo line %q: mount id: %w", line, err)
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return mountEntry{}, fmt.Errorf("mountinfo line %q: parent id: %w", line, err)
	}
	return mountEntry{
		Mount: Mount{
			Point:        unescape(f[4]),
			Source:       unescape(f[dash+2]),
			Dev:          f[2],
			Options:      strings.Split(f[5], ","),
			SuperOptions: strings.Split(unescape(f[dash+3]), ","),
		},
		id:     id,
		parent: parent,
		root:   unescape(f[3]),
		fsType: unescape(f[dash+1]),
	}, nil
}

// unescape undoes the kernel's octal escapes (\040 a blank, \011 a tab, \012 a newline, \134 a backslash, \043 a #).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hidden says whether no path leads to e: another mount is stacked on it, or lies over a directory above it or above a mount
// that holds it.
func hidden(e mountEntry, table []mountEntry) bool {
	if slices.ContainsFunc(table, func(z mountEntry) bool { return z.parent == e.id && z.Point == e.Point }) {
		return true
	}
	for range table { // as many steps up as there are mounts, should the table run in a circle
		over := func(z mountEntry) bool { return z.parent == e.parent && isAbove(z.Point, e.Point) }
		if slices.ContainsFunc(table, over) {
			return true
		}
		i := slices.IndexFunc(table, func(z mountEntry) bool { return z.id == e.parent })
		if i < 0 {
			return false
		}
		e = table[i]
	}
	return false
}

// isAbove says whether dir is a directory above path, both absolute and clean.
func isAbove(dir, path string) bool {
	if dir == "/" {
		return path != "/"
	}
	return strings.HasPrefix(path, dir+"/")
}
