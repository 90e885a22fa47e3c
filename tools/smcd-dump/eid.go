// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
)

const maxEIDLen = 32 // SMC_MAX_EID_LEN

// parseUEID returns the User EID without the blanks that may pad it, if it keeps smcd's rules. They are those of the device
// and one more: no two dots in a row. The errors are smcd's (ueid_valid in smc-tools' ueid.c).
func parseUEID(s string) (string, error) {
	if len(s) > maxEIDLen {
		return "", errors.New("Invalid User EID specified: EID is longer than 32 characters")
	}
	s = strings.TrimRight(s, " ")
	if s == "" {
		return "", errors.New("Invalid User EID specified: EID is empty")
	}
	if !isAlphanumeric(s[0]) {
		return "", errors.New("Invalid User EID specified: first character must be alphanumeric")
	}
	if strings.Contains(s, "..") {
		return "", errors.New("Invalid User EID specified: consecutive dots not allowed")
	}
	if i := strings.IndexFunc(s, outsideEID); i >= 0 {
		return "", fmt.Errorf("Invalid User EID specified: unsupported character: %q\n"+
			"       Supported characters are: A-Z, 0-9, '.' and '-'", []rune(s[i:])[0])
	}
	return s, nil
}

func isAlphanumeric(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

func outsideEID(r rune) bool {
	switch {
	case 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-':
		return false
	}
	return true
}
