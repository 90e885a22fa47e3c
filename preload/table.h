/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of the program's descriptors are what. A descriptor keeps its number, and is the TCP socket; what the library knows of it hangs in
 * a table by that number. What is not in the table, or is marked plain there, costs one load and goes to the C library.
 *
 * The library's own descriptors (DMBs, bells, the device) are out of the program's sight: high numbers, close-on-exec, and close, dup2 and
 * close_range pass over them.
 */
#ifndef PRELOAD_TABLE_H
#define PRELOAD_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../clients/c/lock.h"

struct sock;

enum { TABLE_SIZE = 1 << 20 };

extern _Atomic uintptr_t table[TABLE_SIZE];

enum { TABLE_PLAIN = 1 }; /* bit 0 of an entry: the connection is on TCP, only close and its like matter */

/* Whether the library has a hand in what the descriptor moves. */
static inline bool table_moves(int fd)
{
	uintptr_t entry;

	if ((unsigned int)fd >= TABLE_SIZE)
		return false;
	entry = atomic_load_explicit(&table[fd], memory_order_acquire);
	return __builtin_expect(entry != 0 && !(entry & TABLE_PLAIN), 0);
}

static inline bool table_has(int fd)
{
	return (unsigned int)fd < TABLE_SIZE && atomic_load_explicit(&table[fd], memory_order_acquire) != 0;
}

/* What an entry that is there holds. Only for who is alone: it takes no reference. */
static inline struct sock *table_sock(int fd)
{
	return (struct sock *)(atomic_load_explicit(&table[fd], memory_order_acquire) & ~(uintptr_t)TABLE_PLAIN);
}

/* The socket of a descriptor, to be given back by sock_put; NULL: none. Plain ones only if any is set. */
struct sock *table_get(int fd, bool any);

void table_set(int fd, struct sock *s, bool plain);

/* Takes the entry out; its reference is the caller's. */
struct sock *table_take(int fd);

/* One past the highest number that was ever in the table. */
int table_end(void);

/* Takes a descriptor of the library's own out of sight; returns its new number, or the old one if there is no better. */
int hidden_take(int fd);
/* A copy for the library, out of sight; -1: none could be had. */
int hidden_copy(int fd);
bool hidden_has(int fd);
void hidden_close(int fd);
/* Empties a bell or an eventfd. */
void hidden_drain(int fd);

/* For close_range: the lowest hidden one from a number on, or -1. */
int hidden_next(unsigned int from);

/* Held by a fork, so that the child does not begin with the limit as it is for a moment. */
extern struct lock hidden_lock;

/* Whether there are numbers left for those of another connection. */
bool hidden_has_room(void);

#endif
