// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ismfs/ismfs/smc"
)

// parseSize reads a number of bytes, with k or m for 1024 and its square.
func parseSize(text string) (int, error) {
	digits, shift := strings.ToLower(text), 0
	if d, ok := strings.CutSuffix(digits, "k"); ok {
		digits, shift = d, 10
	} else if d, ok := strings.CutSuffix(digits, "m"); ok {
		digits, shift = d, 20
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 || n<<shift > 1<<30 {
		return 0, fmt.Errorf("%q is no size such as 100, 64k or 1m", text)
	}
	return int(n << shift), nil
}

// parseBuffer reads the size of an SMC connection's buffer.
func parseBuffer(text string) (int, error) {
	n, err := parseSize(text)
	if err == nil && (n < smc.MinBufSize || n > smc.MaxBufSize) {
		err = fmt.Errorf("buffers are 16k to 1m, not %s", text)
	}
	return n, err
}

// sizeText writes a size as rows are named.
func sizeText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%d,000 B", n/1000)
	}
	return fmt.Sprintf("%d B", n)
}
