// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package smcopt

// Mark returns [ErrNoPrograms]: there is no SMC here.
func Mark(int, Tag) error { return ErrNoPrograms }

// Unmark returns [ErrNoPrograms].
func Unmark(int) error { return ErrNoPrograms }

// Ask returns [ErrNoPrograms].
func Ask(int) (Answer, error) { return Answer{}, ErrNoPrograms }

// PlainSYN knows nothing of SYNs here.
func PlainSYN(int) bool { return false }
