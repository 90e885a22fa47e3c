// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tree

// WatchMounts does nothing here: where there can be no ismfs, no mount matters.
func WatchMounts(func()) (stop func()) { return func() {} }
