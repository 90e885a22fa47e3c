/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Link groups: what this process shares with one other process in one role (libsmc/internal/link). A group keeps the DMBs of connections
 * that are over, its own and those of the peer's that it is attached to, for the next ones; and a pair of doorbell pages. What a peer says
 * of itself, its procs id, is a hint: it counts once the device has confirmed it as the owner of the DMB that the peer told.
 */
#ifndef PRELOAD_LINK_H
#define PRELOAD_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "../clients/c/clc.h"
#include "../clients/c/stream.h"

struct buffer; /* one of this process's DMBs */
struct remote; /* a peer's, attached */
struct group;
struct device;
struct sock;

/* This side's half of a connection. */
struct link {
	struct group *group;
	struct buffer *own;
	struct remote *peer;
	uint16_t own_bit, peer_bit;
	bool first, told, pages;
	bool awaited; /* answered by the parent, before a fork, and not confirmed by this process */
	size_t lost; /* the size of the peer's DMB, which had gone already */
};

/* All return 0, a decline code, or a negative errno where the connection has to be reset. */

/* The server's half, for the client that says it is the process peer; fills in the Accept. */
int64_t link_serve(struct link *l, struct device *d, uint32_t peer, uint8_t size, struct clc_answer *accept);
/* The Confirm that answers it: attaches the client's DMB. -ENOENT: that, its bell or its doorbell page is not there (any more). */
int64_t link_confirmed(struct link *l, struct device *d, const struct clc_answer *confirm);
/*
 * After a link_confirmed that said -ENOENT, once TCP has ended: the client has ended before this side came to its Confirm. It may have sent
 * all that it had to say, which lies in the own DMB. -ENOENT: it never came there.
 */
int link_outlive(struct link *l);
/* The client's half, in answer to an Accept; fills in the Confirm. proposed: when. */
int64_t link_connect(struct link *l, struct device *d, const struct clc_answer *accept, int64_t proposed, uint8_t size,
		     struct clc_answer *confirm);

/* Gives up what no connection has come from. out_of_sync: the client does not know the group. */
void link_abandon(struct link *l, bool out_of_sync);

/* The connection begins: fills in the stream. -ECONNABORTED: the device was switched off meanwhile. */
int link_open(struct link *l, struct device *d, struct sock *s);

/*
 * This side has written its last word, and TCP says so to the peer, which may have part of the ring lent until it has shut down TCP, too: by
 * a FIN, or by a reset if the peer's DMB cannot be used again.
 * Its end is heard on a copy of the descriptor; where this process will not see it, since it is not the one that keeps the DMBs, it is
 * looked for once.
 */
void link_shut(struct sock *s, int fd);

/*
 * The connection is over for this process. The DMBs are kept for the next connection once both sides have closed and shut down TCP, whichever process is the
 * last one of this side: the peer cannot tell, and will offer its own again. The call takes over this process's part of the shared state.
 */
void link_end(struct sock *s);

/* Of another socket that this process closes before others do: whether this one keeps it, to take its line out of conns at the end. */
bool link_left(const struct sock *s);

/* Looks after what waits for its end, idle groups and lost peers. now: in ns. */
extern atomic_bool has_groups, has_endings; /* for who looks without the lock */
void link_sweep(void);
/* Whether there is anything to look after. */
static inline bool link_busy(void)
{
	return atomic_load_explicit(&has_endings, memory_order_relaxed) || atomic_load_explicit(&has_groups, memory_order_relaxed);
}

/* No news by the doorbell page any more. */
void link_leave_page(struct link *l);

uint32_t link_id(const struct link *l);
uint64_t link_token(const struct link *l);
uint64_t link_peer_token(const struct link *l);

/* The own doorbell page of a connection's group, NULL: it has none. */
struct own_page;
struct own_page *link_page(const struct link *l);

/*
 * Are both processes bound to the same CPU, so that only one of them runs at a time? Each shows in its own page where it runs: a hint, and
 * old for a while after somebody has moved one of them. Without pages only this side is known, and counts for both.
 */
bool link_shares_cpu(const struct link *l, int64_t now);

/*
 * A child of fork has no part in its parent's groups. But where its parent has answered a client the child may be the one that takes the
 * Confirm, and finds a DMB there that the parent has stayed attached to, which nobody else can be: until then, or until it closes its copy
 * of the connection, the child keeps what the parent was attached to. link_await comes before link_forked.
 */
void link_await(struct link *l);
void link_forked(void);
/* One that the child has, too; after link_forked. */
void link_renew(struct link *l);
extern struct lock link_lock;

#endif
