// SPDX-License-Identifier: Apache-2.0

// Package dmb is the shared files of a mounted loopback-ism device as a Go program uses them: DMBs, their bells and the
// process's procs block. It is docs/dmb-format.md in Go, beside clients/c and clients/python, and public for the same
// reason: a program that wants shared memory and no sockets needs nothing else, and package libsmc builds its connections
// from nothing else.
//
// A DMB is a ring of bytes behind a header of 32. One process registers it ([Register]) and reads it, one other attaches it
// ([Attach]) and writes it, header and ring; so a connection is two DMBs. This package moves words and bytes and makes the
// system calls. What the words mean is package smc's, in which order they are written and looked at is the caller's.
//
// Words of the header are single atomic accesses, sequentially consistent as all of Go's: a store followed by a load of
// another word needs no further fence. Where a DMB is written by system call (dmb_copy 1), the functions here end in one.
//
// The files are opened without Go's poller, which would ask the daemon about each of them; only a bell that is waited on
// uses it. Nothing is finalized: what is opened must be closed, and not be used afterwards. A mapping that is used after its
// Close is a fault that ends the program, so a caller guards Close against its own other calls.
//
// The package compiles everywhere. Where there can be no ismfs its functions fail with [errors.ErrUnsupported].
package dmb
