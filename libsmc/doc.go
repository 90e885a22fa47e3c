// SPDX-License-Identifier: Apache-2.0

// Package libsmc gives Go programs SMC-D connections over a mounted loopback-ism device, and plain TCP connections to
// everybody else. It is used as package net is:
//
//	l, err := libsmc.Listen("tcp", ":8080")     // net.Listen
//	c, err := libsmc.Dial("tcp", "host:8080")   // net.Dial
//
// A connection begins as TCP. If both ends are on this host, use this package and have the same device, they
// agree in the CLC handshake of SMC-D version 2.1, and from then on bytes go through shared buffers (DMBs); the TCP
// connection stays, idle, as the connection's name and as its sign of life. If anything is missing the connection is
// the TCP connection that it would have been, with the reason recorded: see [Conn.Info].
//
// # Finding the device
//
// The device is that of the only ismfs mount there is, or of the one that $ISMFS_MOUNT names; ISMFS_MOUNT=off switches SMC off.
// A device that comes later is found when it is mounted, and listeners and connections that are there already move to it;
// new ones are SMC from then on.
//
// SMC_RCVBUF is the size of a connection's buffer unless the program says otherwise, in bytes or with k or m; rounded up to
// 16 KiB, 32 KiB, … 1 MiB. The default is 1 MiB, and less the more connections the process has. SMC_WAIT is how connections
// wait: see [Wait]. SMC_DEBUG, if set and not 0, logs what becomes of each connection to standard error.
//
// # What differs from package net
//
//   - No MPTCP: neither on dialled sockets nor on listeners.
//   - Dial returns when the TCP connection stands and the Proposal is sent. The peer's program has to run to answer it, so
//     the first Read or Write waits until it has, for as long as its deadline allows. [Conn.Handshake] waits explicitly.
//   - A Write waits while the peer's buffer is full, and there is no second buffer before it.
//   - File exists on TCP only, and SyscallConn is for options and for a look at the peer's life: the descriptor of an SMC
//     connection carries no data.
//   - There is no urgent data. TCP Fast Open keeps a socket on TCP. IPsec policies are not seen: what must be encrypted
//     between two processes of one host needs ISMFS_MOUNT=off.
//
// A process that forks must not use its connections in both processes. Go programs do not fork; they start other programs,
// which inherit nothing of this.
package libsmc
