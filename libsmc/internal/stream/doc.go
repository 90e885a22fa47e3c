// SPDX-License-Identifier: Apache-2.0

// Package stream is the data path of libsmc: a net.Conn over a pair of DMBs, from the moment at which the handshake has
// told each side the other's token. Handshake, fallback and link groups are built on top and see only what it exports.
//
// # Who writes what
//
// A [Conn] owns one DMB, which it reads, and is attached to its peer's, which it writes: ring and header. Of the words there
//
//	producer word     by the writing goroutine, under wmu
//	consumer word     under mu: the reader's cursor, the writer's flags and the closing flags share it
//	wait state        each byte by its side, the reader (rmu) or the writer (wmu); the peer clears it
//	signal sequence   by anybody: it only moves
//
// and of the words in the own DMB it clears wait fields and moves the sequence, nothing else. Nothing in it is trusted: each
// word is loaded once, validated by package smc and kept in a copy; payload is copied out once.
//
// Locks are taken in the order rmu, wmu, mu. Whoever touches a mapping holds one of them, and who unmaps holds all. A
// goroutine sleeps with rmu or wmu held; Close and the others that need it wake it first and find a reason why it leaves.
//
// # Sleeping and waking
//
// A side sleeps until it has news (model_test.go goes through every interleaving of these steps):
//
//	sleeper                                        signaller, in the other process
//	1  load the own sequence; or empty the bell    1  publish; fence
//	2  note the sleep, for events of one's own     2  load the wait field of whom it concerns: awake is the end
//	   side; announce it in the peer's header;     3  clear it by compare-and-swap: who fails does nothing
//	   fence                                       4  move the sequence and wake the futex; or ring the bell
//	3  look again: news is the end
//	4  wait on the futex for the loaded value;     event of the own side (Close, a deadline, the device, a death)
//	   or poll the bell                            1  say what happened
//	5  take note and announcement back             2  load the note: awake is the end
//	                                               3  move the own sequence and wake; or ring the own bell
//
// The rungs, each tried before the next: spin ([Conn.spin]), futex for a bounded time and in a bounded number of threads,
// bell for as long as it takes.
//
// Before a side sleeps it publishes the cursor that it holds back, if the peer waits for space.
package stream
