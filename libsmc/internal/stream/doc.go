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
//	                                               3  move the own sequence and wake; or interrupt the
//	                                                  poll: the peer could swallow a ring
//
// The rungs, each tried before the next: look for news ([Conn.spin]); futex, for a bounded time and in a bounded number of threads;
// the link group's doorbell page (see [Pages] for its steps), or the bell where there is none, for as long as it takes. If other
// connections of the group have waited lately, the page at once, but for [Conn.giveWay].
//
// Before a side sleeps it publishes the cursor that it holds back, if the peer waits for space.
//
// # The end
//
// One goroutine for each connection reads the idle TCP connection. Its end is the peer's, unless the peer has said more in its
// header; a byte there breaks the contract. Close writes the last word into the peer's DMB, ends TCP for writing (or resets it,
// after a failure or SetLinger(0)) and returns. The rest is that goroutine's: when TCP has ended from the other side too, at
// most closeTime later, it gives the link back; Close does so itself if TCP had ended before. A DMB can be used again only if
// both sides have written closed or aborted in order, nothing was lent at Close, and the device was not switched off. The own
// one is zeroed then, but for the signal sequence, which only ever moves: a late wake-up, or a bit that is set late in a page,
// makes somebody look in vain.
//
// A connection that is never closed is never given back: there is no finalizer, since its goroutine holds it.
package stream
