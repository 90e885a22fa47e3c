// SPDX-License-Identifier: Apache-2.0

package stream

import _ "unsafe" // for go:linkname

// pause tells the CPU that this is a loop that waits, cycles times. It is the runtime's, which keeps it for such use
// (go.dev/issue/67401).
//
//go:linkname pause runtime.procyield
func pause(cycles uint32)
