// SPDX-License-Identifier: Apache-2.0

package device

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
)

// A Token names one DMB of a device. It is a capability: who knows it may attach. Zero is no token.
type Token uint64

// NewToken draws a token at random.
func NewToken() Token {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails: crypto/rand ends the program rather than return short
		if t := Token(binary.NativeEndian.Uint64(b[:])); t != 0 {
			return t
		}
	}
}

// String returns the token as its file is named: 16 lower-case hex digits.
func (t Token) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// ParseToken is the reverse of [Token.String]. Anything else, zero included, is no token.
func ParseToken(s string) (Token, bool) {
	if len(s) != 16 {
		return 0, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return 0, false
		}
	}
	v, err := strconv.ParseUint(s, 16, 64)
	return Token(v), err == nil && v != 0
}

// retiredTokens remembers tokens that have been in use, so that none comes back while somebody may still hold it from
// before. Exact memory of every token ever would be a leak, and a random one returns by chance in 2⁶⁴ only, so the last
// 65,536 to 131,072 are kept.
type retiredTokens struct {
	young, old map[Token]struct{}
}

const retiredGeneration = 1 << 16

func (r *retiredTokens) add(t Token) {
	if r.young == nil || len(r.young) == retiredGeneration {
		r.young, r.old = make(map[Token]struct{}), r.young
	}
	r.young[t] = struct{}{}
}

func (r *retiredTokens) has(t Token) bool {
	if _, ok := r.young[t]; ok {
		return true
	}
	_, ok := r.old[t]
	return ok
}
