// SPDX-License-Identifier: Apache-2.0

// Package smc is the SMC-D protocol as the Linux kernel speaks it over its
// loopback-ism device: the CLC messages of the handshake, the rules by which
// the two ends agree, the CDC header that stands at the start of every DMB,
// its cursors and flags, and the states of a connection.
//
// It knows bytes and values only. It reads no socket, opens no file and maps
// no memory; it keeps no lock, so a caller guards what several goroutines use.
//
// Names follow net/smc of the kernel; a constant's kernel name stands in its
// comment. CLC fields are big-endian unless the layout says otherwise, CDC
// words are in the byte order of the host.
//
// Errors come in two kinds, as in the kernel. A [DeclineCode] is an error that
// leaves the TCP connection usable: send a Decline that carries it (unless it
// came in one) and go on with plain TCP. A [ProtocolError], which is EPROTO to
// errors.Is, is final: the byte stream can no longer be trusted.
package smc
