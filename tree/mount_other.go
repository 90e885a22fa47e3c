// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tree

const supported = false

// Mounts returns [ErrUnsupported].
func Mounts() ([]Mount, error) { return nil, ErrUnsupported }

// FileSystem returns [ErrUnsupported].
func (d *Device) FileSystem() (uint64, error) { return 0, ErrUnsupported }

// Alive returns [ErrUnsupported].
func (m Mount) Alive() error { return ErrUnsupported }
