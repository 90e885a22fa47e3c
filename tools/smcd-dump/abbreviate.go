// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
)

// abbreviated prints a number in six characters at most, as get_abbreviated of smc-tools does with a limit of six: up to 999
// as it is, above with a factor of 1000 and as many decimal places as fit (1.049M, 262.1K). One digit is given up where
// rounding makes the number longer.
//
// smcd is wrong by a factor of 1000 for numbers of 15 and 18 digits; this is not.
func abbreviated(n uint64) string {
	digits := len(strconv.FormatUint(n, 10))
	if digits < 4 {
		return strconv.FormatUint(n, 10)
	}
	const most = 6
	full := (digits-1)%3 + 1
	places := most - full - 2
	value := float64(n) / math.Pow(1000, float64((digits-1)/3))
	if value+5*math.Pow10(-1-places) >= math.Pow10(full) {
		places--
	}
	return fmt.Sprintf("%*.*f%c", most-1, places, value, "KMGTPE"[(digits-1)/3-1])
}
