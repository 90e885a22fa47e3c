// SPDX-License-Identifier: Apache-2.0

// Package bench measures libsmc beside what programs use without it. It is `ismfs bench`.
//
// A figure comes from a cell: one transport, one row, one placement, one round. Each cell is a pair of fresh processes, a server
// and a client, which this program starts of itself ([RunWorker]) and steers by lines of JSON on their standard input and
// output. All transports of a row take their turns in each round, in rotating order, and ratios are taken within a round: a
// machine's speed changes between rounds more than transports differ.
//
// Each row runs in up to three placements, since where two processes run decides what waking each other costs: each on a CPU of
// its own, both on one, and where the scheduler puts them.
//
// A cell of SMC in which a connection turns out to be TCP is an error, never a figure.
package bench
