// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/ismfs/ismfs/dmb"
	"github.com/ismfs/ismfs/tree"
)

// pages are what a transport wants of the memory of its DMBs; empty: what the device's dmb_type says.
type pages string

const (
	hugePages pages = "huge"
	basePages pages = "base"

	basePage = 4096
)

var dmbTypes = map[pages]tree.DMBType{hugePages: tree.PhysContiguous, basePages: tree.VirtContiguous}

// errPages is why a cell has no figures although its connection is SMC-D.
var errPages = errors.New("the buffers have not the pages that were to be measured")

// check refuses a DMB with pages of another kind than asked for, or of none that the device told.
func (p pages) check(size int64) error {
	if p == "" || size != 0 && (p == hugePages) == (size > basePage) {
		return nil
	}
	return fmt.Errorf("%w: they are of %s; ismfs doctor says which sizes this kernel gives", errPages, sizeText(int(size)))
}

// pageSizeOf returns the size of the pages that most of a DMB has (docs/tree.md, dmbs/), 0 if the device does not tell.
func pageSizeOf(t dmb.Token) int64 {
	dev, err := tree.Find("")
	if err != nil {
		return 0
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dev.Dir(), "dmbs", t.String()), &st); err != nil {
		return 0
	}
	return int64(st.Blksize)
}
