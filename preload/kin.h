/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kin: a process and those that it has forked, as far as they can have sockets in common. Each has a place in a table that they share, and
 * while it lives a lock on the byte of that number in the table's file. Such a lock (fcntl, F_SETLK) is the process's own: fork does not
 * hand it on, and it goes when the process ends or execs, however that comes about. No process id is in it, which could be another's by
 * now, and is another one in another namespace.
 */
#ifndef PRELOAD_KIN_H
#define PRELOAD_KIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Places. 0 is nobody's: who finds none, or cannot lock, is counted and taken to live. */
enum { KIN = 512 };

/* This process's place. */
unsigned int kin_self(void);

/* Before a fork: a place for the child, and one for this process if it has none. 0: none could be had. Under ends_lock. */
unsigned int kin_expect(void);
/* In the child: it has come. Where there is no child: it never will. */
void kin_come(unsigned int place);
void kin_missed(unsigned int place);

/*
 * In the parent, after the fork: which child it is that was expected at a place, whose turn it was then. The parent can tell of it that it was
 * killed before it had its lock.
 */
uint32_t kin_turn(unsigned int place);
void kin_born(unsigned int place, uint32_t turn, pid_t pid);

/* In doubt it does. */
bool kin_lives(unsigned int place);

/* So many sockets more name the place: nobody else gets it as long as there is one. */
void kin_named(unsigned int place, int more);

/* A word that kin have in common (traffic.c), 0 at first. A process without kin has one of its own. */
_Atomic uint64_t *kin_word(void);

#endif
