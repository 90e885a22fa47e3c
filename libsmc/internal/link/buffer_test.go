// SPDX-License-Identifier: Apache-2.0

package link

import (
	"testing"

	"github.com/ismfs/ismfs/smc"
)

// The more connections there are, the smaller is the next one where nobody says a size, and each is of a size that there is.
func TestDefaultSize(t *testing.T) {
	d := &Device{users: 1}
	last := d.defaultSize()
	if last != smc.MaxBufSize {
		t.Errorf("the first one has %d bytes", last)
	}
	for n := range 2000 {
		d.users++
		size := d.defaultSize()
		if size > last || smc.UncompressBufSize(smc.CompressBufSize(size)) != size {
			t.Fatalf("with %d others the next has %d bytes, after %d", n+1, size, last)
		}
		last = size
	}
	if last != smc.MinBufSize {
		t.Errorf("with 2000 others the next has %d bytes", last)
	}
	d.users = 1
	if size := d.defaultSize(); size != smc.MaxBufSize {
		t.Errorf("when all are gone the next has %d bytes", size)
	}
}
