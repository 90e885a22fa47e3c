/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processes have a socket, after forks. Each one's part is known by its place among its kin, so that the part of one that was killed
 * is found and taken away by whoever asks next.
 */
#ifndef PRELOAD_HOLDERS_H
#define PRELOAD_HOLDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "../clients/c/lock.h"
#include "kin.h"

struct sock;
struct shared;

struct places {
	uint64_t bits[KIN / 64];
	uint32_t unplaced; /* processes without a place */
};

struct holders {
	struct lock lock;
	struct places all;  /* those that have it, or look after its end */
	struct places ends; /* those with a descriptor and, in SMC-D mode, the DMBs: the last one closes */
};

/* A new socket's, of this process alone. */
void holders_begin(struct sock *s);

/* For a child, before the fork. */
void holders_expect(struct sock *s, unsigned int child);

/* The handshake was done here: who has only the descriptor closes nothing any more. The socket's kind changes with that. */
void holders_claim(struct sock *s);

/* The last descriptor here goes. Returns whether nobody else is left to close; then this process counts as an end until it leaves. */
bool holders_close(struct sock *s);

/* Whether no other process that lives has it. */
bool holders_alone(struct sock *s);

/* Whether nobody lives who will close: asked by a process that has closed without being the last. */
bool holders_deserted(struct shared *sh);

/* This process has done with it. end: it still counts as one. */
void holders_leave(struct shared *sh, unsigned int place, bool end);

/* Takes away the parts of all who are dead. */
void holders_bury(struct sock *s, int fd);

#endif
