// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ismfs/ismfs/smc"
)

const (
	// DefaultUEID is the user EID that a device starts with, so that two programs find a common one without set-up (the
	// kernel starts with none, and every connection falls back until somebody adds one).
	DefaultUEID = "ISMFS-DEFAULT-UEID"
)

// ueidTable is the device's table of user EIDs (net/smc/smc_clc.c, smc_clc_ueid_add and its neighbours).
type ueidTable struct {
	mu    sync.Mutex
	ueids []string
}

// parseUEID applies the kernel's rules (smc_clc_ueid_valid): 1 to 32 of A-Z, 0-9, dot and hyphen, the first a letter or a digit.
func parseUEID(name string) (string, error) {
	e, err := smc.ParseEID(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", unix.EINVAL, err)
	}
	return e.String(), nil
}

// add adds a user EID. Errors: EINVAL a malformed name, EEXIST already there, ERANGE four are there.
func (t *ueidTable) add(name string) error {
	name, err := parseUEID(name)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.ueids, name) {
		return unix.EEXIST
	}
	if len(t.ueids) == smc.MaxUEIDs {
		return unix.ERANGE
	}
	t.ueids = append(t.ueids, name)
	return nil
}

// remove removes a user EID. Errors: EINVAL a malformed name, ENOENT not there.
func (t *ueidTable) remove(name string) error {
	name, err := parseUEID(name)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.ueids, name)
	if i < 0 {
		return unix.ENOENT
	}
	t.ueids = slices.Delete(t.ueids, i, i+1)
	return nil
}

// list returns the user EIDs in the order they were added.
func (t *ueidTable) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.ueids)
}
