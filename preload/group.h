/* SPDX-License-Identifier: Apache-2.0 */
/* A link group's own affairs: who is in it, what it keeps. Everything here is under link_lock. */
#ifndef PRELOAD_GROUP_H
#define PRELOAD_GROUP_H

#include "buffer.h"

struct group {
	struct group *next;
	struct device *device;
	enum role role;
	uint32_t id;      /* this side's */
	uint32_t peer;    /* the peer's procs id, 0 if it says none: then nothing is kept */
	uint32_t peer_id; /* of a client's: the server's id of it */
	uint64_t epoch;
	unsigned char eid[CLC_EID];
	bool keyed;     /* new connections find it */
	bool known;     /* the peer knows it: a server need not introduce it */
	bool confirmed; /* the device has said who the peer is */
	bool inherited; /* from the parent, by fork */
	unsigned int awaited; /* handshakes that a child of fork goes on with */
	unsigned int users;
	int64_t idle_since;
	uint32_t heard;  /* the device's word when the peer's DMBs that are kept were looked after */
	int64_t looked;
	struct buffer *pool;
	unsigned int pooled;
	uint16_t *bits_free; /* given back */
	unsigned int bits_freed, bits_room;
	uint16_t bits_given;
	bool page_tried;
	struct own_page *page;
	struct remote *peer_page;
	struct stream_page peer_page_words;
	uint32_t slot;
};

/* One that new connections may join, with one user more; NULL: no memory, or (a client's that is not the first) the group is not known. */
struct group *group_of_client(struct device *d, uint32_t peer, const unsigned char *eid);
struct group *group_of_server(struct device *d, uint32_t peer, uint32_t id, bool first, const unsigned char *eid);
void group_leave(struct group *g);
/* No new connection finds it. What it holds goes with its last user: at once, if there is none. */
void group_retire(struct group *g);
bool group_usable(const struct group *g);
bool group_has_pages(const struct group *g);

/*
 * A DMB from the pool that is as a new one would be, or a new one, smaller if memory is short. Of ANY_BUFFER the size goes by how many
 * connections this process has (docs/smc_run.md), and a larger one from the pool will do. before: in the pool since then. Negative errno.
 */
int group_take_buffer(struct group *g, uint8_t size, int64_t before, struct buffer **b);
void group_give_buffer(struct group *g, struct buffer *b, bool reusable);

/* Bits of the own page, 0: none is left. */
uint16_t group_take_bit(struct group *g);
void group_give_bit(struct group *g, uint16_t bit);

/* The token of the own page, made the first time; 0: none could be had. */
uint64_t group_own_page(struct group *g);
/* Makes the peer's page known. -EPROTO: it is another than before, or not the peer's. */
int group_join_page(struct group *g, uint64_t token);

void group_describe(struct group *g, const struct clc_answer *peer);

void groups_sweep(int64_t now);
void groups_forked(void);

#endif
