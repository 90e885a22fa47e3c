/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections on TCP of which nothing else is to be known: neither more descriptors, nor processes, nor an end to be told. Programs that have
 * a connection for each request pay for all that is kept of one, so of these it is a note in the table and a line in conns that says nothing
 * but the descriptor's number, the peer and the reason. The device finds the socket by the number when conns is read; a line whose
 * descriptor is closed, no connection on TCP by now, or one that another line says all of, is not shown. So it stays as it is whatever becomes of
 * the number, and the next connection there, often to the same peer, finds it written.
 */
#ifndef PRELOAD_PLAIN_H
#define PRELOAD_PLAIN_H

#include <stdbool.h>
#include <stdint.h>

#include <netinet/in.h>
#include <string.h>

#include "../clients/c/hot.h"
#include "../clients/c/internal.h"
#include "address.h"
#include "device.h"
#include "table.h"
#include "ticks.h"

/* A connection that has just come about is on TCP: counted and listed. false: not so, its line needs a sock. */
bool plain_list(int fd, struct device *d, bool client, uint32_t reason, const union address *peer);

/*
 * The same once more: an IPv4 server that was connected to from the same number, and known to be on TCP, in the last two milliseconds. All that
 * is looked at lies in the page of the table's first entries and in that of the process's first lines and counters.
 */
struct plain_again {
	struct shared_span holds;
	_Atomic uint64_t to; /* the start of its address: family, port, host */
	const unsigned char *_Atomic lines;
	_Atomic uint64_t *_Atomic counter;
};
extern struct plain_again plain_again;

enum { PLAIN_CLIENT = 0x01010101 }; /* kind, role, mode, state */

static inline bool plain_may_again(int fd, const struct sockaddr *to, socklen_t size)
{
	const unsigned char *line;
	struct sockaddr_in a;
	uint64_t is_to;
	uint32_t is, host;
	uint16_t port;

	if (!table_noted(fd, NOTE_FRESH) || table[fd].line == 0 || to == NULL || size < sizeof(a))
		return false;
	memcpy(&a, to, sizeof(a));
	memcpy(&is_to, &a, sizeof(is_to));
	if (!span_holds(&plain_again.holds) || atomic_load_explicit(&plain_again.to, memory_order_relaxed) != is_to)
		return false;
	line = atomic_load_explicit(&plain_again.lines, memory_order_relaxed) + table[fd].line;
	memcpy(&is, line + SLOT_KIND, sizeof(is));
	memcpy(&port, line + SLOT_PEER_PORT, sizeof(port));
	memcpy(&host, line + SLOT_PEER, sizeof(host));
	return is == PLAIN_CLIENT && line[SLOT_FAMILY] == 4 && port == ntohs(a.sin_port) && host == a.sin_addr.s_addr;
}

static inline void plain_count_again(int fd)
{
	(void)table_note(fd, NOTE_TCP);
	atomic_fetch_add_explicit(atomic_load_explicit(&plain_again.counter, memory_order_relaxed), 1, memory_order_relaxed);
}

/* What was so before a connect: since when its server is known, and how often one has turned out not to be on TCP. */
struct plain_before {
	struct span span;
	uint64_t turns;
};
struct plain_before plain_before(void);

/* A connection to a server that is known to be on TCP has just been listed. */
void plain_again_to(const union address *peer, struct device *d, const struct plain_before *before);

/* A server is not, or not for sure, on TCP any more. */
void plain_not_again(void);

/* There will be another descriptor or process that has it: a sock in place of the note. */
void plain_keep(int fd);

/* The same of all, before a fork; a socket that is no connection yet is shared from now on. */
void plain_keep_all(void);

/* Something has come to a number of which the library knows nothing: what was noted or listed there does not speak of it. */
void plain_unknown(int fd);

/* The socket as the program has made it may be marked from now on. */
static inline void plain_not_fresh(int fd)
{
	if (table_noted(fd, NOTE_FRESH))
		(void)table_swap(fd, NOTE_FRESH, NOTE_MADE);
}

/* A socket that is no connection yet will be more than one number's (NOTE_COPIED), or process's (NOTE_SHARED). false: it is no such. */
bool plain_spread(int fd, enum note note);

/* In a child of fork: the lines are its parent's. */
void plain_forked(void);

#endif
