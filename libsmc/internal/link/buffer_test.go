// SPDX-License-Identifier: Apache-2.0

package link

import (
	"testing"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/procs"
	"github.com/ismfs/ismfs/smc"
)

// The more DMBs there are, the smaller is the next one where nobody says a size, and each is of a size that there is.
func TestDefaultSize(t *testing.T) {
	d := &Device{own: make(map[dmb.Token]procs.Role)}
	last := d.defaultSize()
	if last != smc.MaxBufSize {
		t.Errorf("the first one has %d bytes", last)
	}
	for n := range 2000 {
		d.own[dmb.Token(n+1)] = procs.Client
		size := d.defaultSize()
		if size > last || smc.UncompressBufSize(smc.CompressBufSize(size)) != size {
			t.Fatalf("with %d DMBs the next has %d bytes, after %d", n+1, size, last)
		}
		last = size
	}
	if last != smc.MinBufSize {
		t.Errorf("with 2000 DMBs the next has %d bytes", last)
	}
	clear(d.own)
	if size := d.defaultSize(); size != smc.MaxBufSize {
		t.Errorf("when all are gone the next has %d bytes", size)
	}
}
