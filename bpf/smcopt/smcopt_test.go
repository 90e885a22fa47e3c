// SPDX-License-Identifier: Apache-2.0

package smcopt

import "testing"

func TestTag(t *testing.T) {
	gid := [16]byte{0xa1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 0xf6}
	tag := TagOf(gid)
	if tag.String() != "0a0b0c0d0e0ff6" {
		t.Error(tag)
	}
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{tag.String(), true}, {"0A0B0C0D0E0FF6", true},
		{"", false}, {"0a", false}, {"0a0b0c0d0e0ff6f6", false}, {"0a0b0c0d0e0ffx", false}, {"0a0b0c0d0e0ff", false},
	} {
		got, err := ParseTag(c.text)
		if (err == nil) != c.ok || (c.ok && got != tag) {
			t.Errorf("%q: %v (%v)", c.text, got, err)
		}
	}
}

func TestStateStrings(t *testing.T) {
	seen := make(map[string]bool)
	for s := range Listener + 2 {
		if text := s.String(); text == "" || seen[text] && s != Listener+1 {
			t.Errorf("state %d is %q", s, text)
		} else {
			seen[text] = true
		}
	}
}
