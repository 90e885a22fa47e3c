// SPDX-License-Identifier: Apache-2.0

package dmb

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
)

// A Token is the name of a DMB, and the right to use it. 0 is none.
type Token uint64

// String returns the token as the tree shows it: 16 lower-case hex digits.
func (t Token) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// ParseToken parses 16 lower-case hex digits that are not all 0.
func ParseToken(s string) (Token, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	t := Token(n)
	if err != nil || t == 0 || t.String() != s {
		return 0, fmt.Errorf("DMB token %q: want 16 lower-case hex digits, not all 0", s)
	}
	return t, nil
}

// newToken draws a token.
func newToken() Token {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails
		if t := Token(binary.NativeEndian.Uint64(b[:])); t != 0 {
			return t
		}
	}
}
