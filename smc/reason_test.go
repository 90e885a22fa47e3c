// SPDX-License-Identifier: Apache-2.0

package smc

import (
	"slices"
	"testing"
)

// The constants ascend, so a complete list is one that ascends and holds every
// code that has a name.
func TestDeclineCodesComplete(t *testing.T) {
	if len(DeclineCodes) != len(declineNames) || !slices.IsSorted(DeclineCodes) {
		t.Errorf("%d codes, %d names, or out of order", len(DeclineCodes), len(declineNames))
	}
	for c := range declineNames {
		if !slices.Contains(DeclineCodes, c) {
			t.Errorf("%v is missing", c)
		}
	}
}
