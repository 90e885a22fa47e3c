// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// EIDLen is the length of an EID on the wire, padded (SMC_MAX_EID_LEN).
const EIDLen = 32

// MaxUEIDs is how many user EIDs one system may have (SMC_MAX_UEID). A
// Proposal may carry up to 8.
const MaxUEIDs = 4

// What is wrong with the text of an EID.
var (
	ErrEIDEmpty   = errors.New("EID is empty")
	ErrEIDTooLong = errors.New("EID is longer than 32 characters")
	ErrEIDFirst   = errors.New("EID does not start with A-Z or 0-9")
	ErrEIDChar    = errors.New("EID has a character other than A-Z, 0-9, '.' and '-'")
)

// EID names a group of systems that may talk SMC to each other: ASCII, padded
// with blanks to 32 bytes.
type EID [EIDLen]byte

// ParseEID checks the text of a user EID by the kernel's rules
// (smc_clc_ueid_valid) and pads it. Trailing blanks are allowed. The smcd tool
// refuses ".." in addition; the kernel takes it.
func ParseEID(s string) (EID, error) {
	var e EID
	text := strings.TrimRight(s, " ")
	if err := checkEID(text); err != nil {
		return e, fmt.Errorf("%w: %q", err, s)
	}
	for i := copy(e[:], text); i < EIDLen; i++ {
		e[i] = ' '
	}
	return e, nil
}

func checkEID(text string) error {
	switch {
	case text == "":
		return ErrEIDEmpty
	case len(text) > EIDLen:
		return ErrEIDTooLong
	case !alnum(text[0]):
		return ErrEIDFirst
	}
	for i := range len(text) {
		if c := text[i]; !alnum(c) && c != '.' && c != '-' {
			return ErrEIDChar
		}
	}
	return nil
}

func alnum(c byte) bool { return 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' }

// String returns the EID without its padding.
func (e EID) String() string { return strings.TrimRight(string(e[:]), " \x00") }

// ChooseEID returns the EID on which server and client agree: the first of the
// client's, in its order, that the server has too (smc_clc_match_eid). The
// kernel tries system EIDs before; loopback-ism hosts have none.
func ChooseEID(client, server []EID) (EID, bool) {
	for _, e := range client {
		if slices.Contains(server, e) {
			return e, true
		}
	}
	return EID{}, false
}
