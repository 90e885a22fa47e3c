// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tree

const supported = false

// Mounts returns [ErrUnsupported].
func Mounts() ([]Mount, error) { return nil, ErrUnsupported }

// Alive returns [ErrUnsupported].
func (m Mount) Alive() error { return ErrUnsupported }
