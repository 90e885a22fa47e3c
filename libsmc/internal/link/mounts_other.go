// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package link

// watchMounts: where there can be no ismfs, no mount matters.
func watchMounts(func()) (stop func()) { return func() {} }
