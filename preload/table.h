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

/* All that short calls look at, in one line of the cache. */
struct entry {
	_Atomic uintptr_t sock; /* or a note: one word, so that who notes, keeps and closes a number at once agree */
	_Atomic uint32_t line;  /* plain.c */
	_Atomic uint8_t more;   /* something else may be kept of the number: by epoll, of SO_RCVBUF, or it is the library's own */
};

extern struct entry table[TABLE_SIZE];

enum { TABLE_PLAIN = 1 }; /* bit 0 of an entry's sock: the connection is on TCP, only close and its like matter */

/* What is noted of a descriptor that has no sock. Bit 0 is as in an entry that has. */
enum note {
	NOTE_NONE = 0,
	NOTE_FRESH = 1,  /* a TCP socket as the program has made it: never marked */
	NOTE_TCP = 3,    /* a connection that is on TCP; plain.c lists it */
	NOTE_MADE = 5,   /* a TCP socket that the program has made, and may have been marked */
	NOTE_COPIED = 7, /* the same, of which other numbers have this note, too */
	NOTE_SHARED = 9, /* the same, that other processes have */
};

static inline bool is_note(uintptr_t entry)
{
	return entry <= NOTE_SHARED;
}

static inline uintptr_t table_entry(int fd)
{
	return atomic_load_explicit(&table[fd].sock, memory_order_acquire);
}

/* Whether the library has a hand in what the descriptor moves. */
static inline bool table_moves(int fd)
{
	uintptr_t entry;

	if ((unsigned int)fd >= TABLE_SIZE)
		return false;
	entry = table_entry(fd);
	return __builtin_expect(entry != 0 && !(entry & TABLE_PLAIN), 0);
}

static inline bool table_has(int fd)
{
	return (unsigned int)fd < TABLE_SIZE && !is_note(table_entry(fd));
}

static inline bool table_noted(int fd, enum note note)
{
	return (unsigned int)fd < TABLE_SIZE && atomic_load_explicit(&table[fd].sock, memory_order_relaxed) == note;
}

extern _Atomic int table_reach;
void table_reach_to(int fd);

/* From one note to another, or to a sock; false: it was something else. */
static inline bool table_swap(int fd, uintptr_t from, uintptr_t to)
{
	return atomic_compare_exchange_strong(&table[fd].sock, &from, to);
}

/* In place of whatever note there is; false: there is a sock. */
static inline bool table_note(int fd, enum note note)
{
	uintptr_t was;

	if ((unsigned int)fd >= TABLE_SIZE)
		return true;
	if (__builtin_expect(fd >= atomic_load_explicit(&table_reach, memory_order_relaxed), 0))
		table_reach_to(fd);
	was = atomic_load_explicit(&table[fd].sock, memory_order_relaxed);
	while (is_note(was))
		if (atomic_compare_exchange_weak(&table[fd].sock, &was, note))
			return true;
	return false;
}

bool process_is_ours(void); /* sock.h */

/* Whether nothing is kept of a descriptor but a note, which is taken away: it is about to be closed. A child of vfork closes its own one. */
static inline bool table_pass(int fd)
{
	uintptr_t entry;

	if ((unsigned int)fd >= TABLE_SIZE)
		return true;
	entry = atomic_load_explicit(&table[fd].sock, memory_order_relaxed);
	if (!is_note(entry) || atomic_load_explicit(&table[fd].more, memory_order_relaxed))
		return false;
	return entry == NOTE_NONE || !process_is_ours() || table_swap(fd, entry, NOTE_NONE);
}

/* What an entry that is there holds. Only for who is alone: it takes no reference. */
static inline struct sock *table_sock(int fd)
{
	return (struct sock *)(table_entry(fd) & ~(uintptr_t)TABLE_PLAIN);
}

/* The socket of a descriptor, to be given back by sock_put; NULL: none. Plain ones only if any is set. */
struct sock *table_get(int fd, bool any);

/* Returns what was there. */
uintptr_t table_set(int fd, struct sock *s, bool plain);

/* Something else is kept of the number. */
void table_more(int fd);

/* Takes the entry out; its reference is the caller's. */
struct sock *table_take(int fd);

/* One past the highest number that was ever in the table, or noted. */
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
