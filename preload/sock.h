/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket that the library has a hand in, from connect or accept until its last descriptor is closed.
 *
 *   CONNECTING   a connect that did not wait is under way
 *   HANDSHAKE    TCP stands; CLC messages are awaited. Nobody works on it in the background: whoever reads, writes or waits
 *                carries it on (handshake.c)
 *   SMC          bytes go through DMBs; TCP is idle
 *   PLAIN        fallen back: everything is the kernel's, only the description in conns is kept
 *   FAILED       the handshake ended without a connection, TCP is reset
 *   LISTENER
 *   ELSEWHERE    another process has answered the client after the fork, or is SMC with it: this one has only the descriptor
 *
 * What the processes that share a socket after a fork must agree on lies in shared memory (struct shared); the rest is each one's.
 */
#ifndef PRELOAD_SOCK_H
#define PRELOAD_SOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../clients/c/clc.h"
#include "../clients/c/stream.h"
#include "address.h"
#include "holders.h"
#include "link.h"
#include "spin.h"
#include "table.h"

enum kind { SOCK_CONNECTING = 1, SOCK_HANDSHAKE, SOCK_SMC, SOCK_PLAIN, SOCK_FAILED, SOCK_LISTENER, SOCK_ELSEWHERE };

struct shared {
	_Atomic uint32_t used; /* this place of the arena is taken */
	struct holders holders;
	_Atomic int fin; /* a FIN_…, where only the last one can tell */
	_Atomic int kind;
	struct lock handshake; /* held by who carries it on; guards what follows up to stream */
	bool client, kernel;   /* kernel: the peer is the kernel's SMC */
	bool unasked;          /* a client that was not marked, since its server is on TCP (servers.h) */
	bool passed;           /* a listener that stays when the program ends, with who has passed it */
	_Atomic uint8_t awaits;       /* CLC_ACCEPT, CLC_PROPOSAL or CLC_CONFIRM */
	int64_t proposed;      /* when a client has sent its Proposal */
	_Atomic bool declined; /* SOCK_HANDSHAKE: this side has, but a message of the peer's stands before what it reads (declined.c) */
	int64_t end_by;        /* until when a server waits for the end of a client whose DMB has gone */
	_Atomic int64_t wanted; /* since when a client's program wants to write, 0 not */
	_Atomic int shut;      /* 1 << READER, 1 << WRITER: shutdown before the handshake has ended */
	_Atomic bool told;     /* the program has asked whether its connect has ended */
	_Atomic bool returned; /* a connect has returned 0 */
	_Atomic bool writable; /* or has been told so, while nobody has answered: there is to be room for a write */
	_Atomic int error;     /* of FAILED; of a connect */
	_Atomic bool error_told;
	_Atomic bool nonblocking, linger_zero;
	_Atomic int64_t receive_limit, send_limit; /* SO_RCVTIMEO and SO_SNDTIMEO in ns, 0 none, -1 not known */
	_Atomic int buffer;                        /* SO_RCVBUF as the program set it, 0 not */
	uint32_t slot;
	int described; /* the process in whose block the slot is */
	uint64_t inode;
	union address local, peer; /* as far as they are known */
	uint32_t reason, diagnosis;
	struct clc_local sent; /* what the Proposal offered */
	struct clc_answer accept;
	_Atomic uint32_t bell_listens, bell_told, bell_others; /* of who sleeps on the own bell: wait.c */
	bool marked;  /* for programs that inherit it (inherit.c) */
	int unmarked; /* what the mark has replaced */
	struct stream_state stream;
};

struct item;

enum { FIN_UNKNOWN, FIN_SEEN, FIN_NOT_SEEN }; /* the peer's, when this side had closed */

struct sock {
	_Atomic uint32_t refs;
	_Atomic uint32_t fds; /* in this process */
	struct shared *shared;
	struct device *device; /* NULL: none was found */
	struct link link;
	struct stream stream; /* valid once SMC */

	struct lock listing;          /* guards items */
	struct item *_Atomic items;   /* registrations in epoll sets */
	_Atomic unsigned int registered; /* of these, as the program sees them */
	struct lock watching;         /* guards waiters and the announcements to the peer */
	_Atomic unsigned int waiters[SIDES];
	struct spinning spinning;
	_Atomic uint32_t heard; /* the device's word when the peer was last asked for */
	_Atomic bool ended;  /* no descriptor is left */
	bool last;           /* nor in another process that could close */
	int tcp;             /* a copy of the descriptor, once TCP is shut down; -1: none */
	_Atomic bool waits_for_server; /* self.c */
	_Atomic bool elsewhere; /* SOCK_HANDSHAKE: another process goes on with it */
	bool held;           /* this process is one of the holders */
	unsigned int place;  /* under this place */
	uint32_t forks;      /* the fork under way that has counted its child */
	struct sock *next_free;
};

static inline int sock_kind(const struct sock *s)
{
	int kind = atomic_load_explicit(&s->shared->kind, memory_order_acquire);

	return (kind == SOCK_SMC && s->stream.own == NULL) || (kind == SOCK_HANDSHAKE && atomic_load(&s->elsewhere)) ? SOCK_ELSEWHERE : kind;
}

/* A new one with one descriptor and two references, the table's and the caller's. NULL: no memory. */
struct sock *sock_new(enum kind kind, bool client);

/* One that has not come into the table after all, with both references. */
void sock_discard(struct sock *s);

/* The last reference gives back what a socket had whose descriptors are closed: threads may be in the middle of it until then. */
void sock_put(struct sock *s);

/* The socket's kind has been settled: the table, epoll sets and conns hear of it. */
void sock_settled(struct sock *s, int fd);

/* Write the description into conns; take it out, if it stands in the block of this process or of its parent's. */
void sock_describe(struct sock *s, int fd);
void shared_undescribe(struct shared *sh, const struct device *d);

/*
 * A descriptor goes; the caller closes it afterwards. The last one of the last process ends the connection. Returns false if nothing of
 * the library's hangs on it.
 */
bool sock_drop(int fd);

/* Into the table, at all its numbers. */
void sock_place(struct sock *s, int fd, bool plain);

/* The socket is no connection, and no listener, any more; its numbers can be used for another one. */
void sock_anew(struct sock *s);

/* One more descriptor of the same socket. */
void sock_alias(int from, int to);

/* The kernel has just given a number that the table has a socket of, whose close was not seen: it goes, without a call on the number. */
void sock_stale(int fd, enum note note);

/*
 * Held by a fork, so that what it counts is what the child finds: no connection comes about meanwhile, and no descriptor goes. Taken before
 * link_lock. free_lock is of the objects that are not in use.
 */
extern struct lock ends_lock, free_lock;

/* Whether this is the process that the library knows: not a child of vfork, which has its parent's memory. */
bool process_is_ours(void);
/* Whether it is one of those. The library's constructor may not have run yet. */
bool process_is_borrowed(void);

/* Whether the peer is there still, by TCP and by the device; cheap unless something has happened. */
void sock_check(struct sock *s, int fd);
void sock_tcp_event(struct sock *s, int fd);

/* SO_RCVBUF as the program has set it on a descriptor, 0 if it has not (control.c). */
int buffer_asked(int fd);
void buffer_forget(int fd);

/* What is kept of a number beside its entry in the table is another descriptor's (control.c). */
void more_forget(int fd);

/* Whether the library keeps anything of a descriptor. */
bool fd_known(int fd);

/* Ends TCP by a reset, keeping the descriptor. */
void tcp_reset(int fd);

#endif
