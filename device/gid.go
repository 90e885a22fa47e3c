// SPDX-License-Identifier: Apache-2.0

package device

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// A GID identifies a device: 128 bits, a random UUID (version 4), in the order of its text as in DIBS
// (drivers/dibs/dibs_loopback.c).
type GID [16]byte

// NewGID draws a GID.
func NewGID() GID {
	var g GID
	rand.Read(g[:])
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// String returns the GID as lower-case UUID text.
func (g GID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[0:4], g[4:6], g[6:8], g[8:10], g[10:16])
}

// ParseGID reads UUID text. The zero GID is refused: it means none.
func ParseGID(s string) (GID, error) {
	var g GID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("GID %q is not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", s)
	}
	if n, err := hex.Decode(g[:], []byte(strings.ReplaceAll(s, "-", ""))); err != nil || n != len(g) {
		return GID{}, fmt.Errorf("GID %q has a character that is no hex digit", s)
	}
	if g == (GID{}) {
		return g, fmt.Errorf("the zero GID names no device")
	}
	return g, nil
}
