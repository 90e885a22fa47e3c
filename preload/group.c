/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "debug.h"
#include "group.h"
#include "table.h"
#include "traffic.h"

/* As the kernel (SMC_LGR_FREE_DELAY_…); the client's end later, so that no server offers what the client has let go. */
static const int64_t idle_ns = INT64_C(600000000000), idle_client_ns = INT64_C(630000000000);

enum { MOST_POOLED = 256 };

static struct group *groups;
HOT_DATA atomic_bool has_groups;
static uint32_t last_id;
static unsigned int users; /* of all groups: connections and handshakes */

/* In the kernel's steps, from where hardly any other process begins: the low byte is for the links of SMC-R. */
static uint32_t next_id(void)
{
	if (last_id == 0 && getrandom(&last_id, sizeof(last_id), 0) != (ssize_t)sizeof(last_id))
		last_id = (uint32_t)now_ns();
	last_id = (last_id & ~UINT32_C(0xFF)) + 0x100;
	if (last_id == 0)
		last_id = 0x100;
	return last_id;
}

bool group_usable(const struct group *g)
{
	return g->keyed && !g->inherited && g->epoch == procs_epoch(g->device->procs) && !atomic_load(&g->device->dead);
}

bool group_has_pages(const struct group *g)
{
	return g->page != NULL && g->peer_page != NULL;
}

static void unlink_group(struct group *g)
{
	for (struct group **at = &groups; *at != NULL; at = &(*at)->next)
		if (*at == g) {
			*at = g->next;
			break;
		}
	atomic_store(&has_groups, groups != NULL);
	g->keyed = false;
}

static void close_pool(struct group *g)
{
	while (g->pool != NULL) {
		struct buffer *b = g->pool;

		g->pool = b->next;
		buffer_close(b);
	}
	g->pooled = 0;
}

static void group_free(struct group *g)
{
	unlink_group(g);
	close_pool(g);
	if (!g->inherited)
		remotes_close(g);
	if (g->page != NULL)
		page_put_locked(g->page);
	if (g->peer_page != NULL)
		remote_close(g->peer_page);
	if (!g->inherited)
		slot_free(g->device->procs, g->slot);
	free(g->bits_free);
	free(g);
}

/*
 * What is kept for the next connections is the parent's: copies that a child held would hold it for the child's life. It keeps only what a
 * handshake that it may go on with can need.
 */
void groups_forked(void)
{
	buffers_forget();
	for (struct group *g = groups, *next; g != NULL; g = next) {
		next = g->next;
		g->inherited = true;
		if (g->page != NULL)
			page_renew(g->page, true);
		close_pool(g);
		if (g->users == 0)
			group_free(g);
	}
	groups = NULL;
	atomic_store(&has_groups, false);
	last_id = 0;
	users = 0;
}

void group_retire(struct group *g)
{
	unlink_group(g);
	if (g->users == 0)
		group_free(g);
}

static struct group *group_new(struct device *d, enum role role, uint32_t peer, const unsigned char *eid)
{
	struct group *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return NULL;
	g->device = d;
	g->role = role;
	g->id = next_id();
	g->peer = peer;
	g->epoch = procs_epoch(d->procs);
	memcpy(g->eid, eid, CLC_EID);
	g->slot = slot_take(d->procs);
	if (peer != 0) {
		g->keyed = true;
		g->next = groups;
		groups = g;
		atomic_store(&has_groups, true);
	}
	return g;
}

static struct group *find(const struct device *d, enum role role, uint32_t peer, uint32_t peer_id)
{
	struct group *g = groups;

	while (g != NULL && (g->device != d || g->role != role || g->peer != peer || g->peer_id != peer_id))
		g = g->next;
	return g;
}

/* Has the peer let go of the own page: is its process gone, or its group? */
static bool peer_gone(const struct group *g)
{
	return group_has_pages(g) && !buffer_keeps_peer(g->device, g->page->buffer);
}

static void join(struct group *g)
{
	if (g == NULL)
		return;
	g->users++;
	users++;
}

struct group *group_of_client(struct device *d, uint32_t peer, const unsigned char *eid)
{
	struct group *g = peer != 0 ? find(d, ROLE_SERVER, peer, 0) : NULL;

	if (g != NULL && (!group_usable(g) || memcmp(g->eid, eid, CLC_EID) != 0 || (g->users == 0 && peer_gone(g)))) {
		group_retire(g);
		g = NULL;
	}
	if (g == NULL)
		g = group_new(d, ROLE_SERVER, peer, eid);
	join(g);
	return g;
}

struct group *group_of_server(struct device *d, uint32_t peer, uint32_t id, bool first, const unsigned char *eid)
{
	struct group *g = find(d, ROLE_CLIENT, peer, id);

	if (g != NULL && (!group_usable(g) || memcmp(g->eid, eid, CLC_EID) != 0)) {
		group_retire(g);
		g = NULL;
	}
	if (g == NULL && first) {
		g = group_new(d, ROLE_CLIENT, peer, eid);
		if (g != NULL) {
			g->peer_id = id;
			g->confirmed = true;
		}
	}
	join(g);
	return g;
}

void group_leave(struct group *g)
{
	if (!g->inherited && users > 0)
		users--;
	if (--g->users > 0)
		return;
	if (!group_usable(g) || !g->confirmed)
		group_free(g);
	else
		g->idle_since = now_ns();
}

/* ---- what it keeps ---- */

/*
 * A few connections that carry much want rings in which both sides work at once. Of many, none gets less than the kernel gives: a program
 * that knows only TCP may write much before it reads. Those that come and go with little pay for a large ring and do not use it.
 */
static size_t default_size(void)
{
	if (traffic_is_light())
		return 64 << 10;
	return users <= 8 ? SMC_MAX_BUFFER : users <= 16 ? 256 << 10 : 64 << 10;
}

static struct buffer *from_pool(struct group *g, size_t size, bool larger, int64_t before)
{
	for (struct buffer **at = &g->pool; *at != NULL;) {
		struct buffer *b = *at;

		if (b->pooled > before || b->dmb.size < size || (b->dmb.size > size && !larger) || b->epoch != procs_epoch(g->device->procs) ||
		    b->separated != procs_separated(g->device->procs)) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		g->pooled--;
		if (buffer_keeps_peer(g->device, b))
			return b;
		buffer_close(b);
	}
	return NULL;
}

/* The device has no room: what is kept for later has to go. */
static bool drop_pools(void)
{
	bool any = false;

	for (struct group *g = groups; g != NULL; g = g->next)
		while (g->pool != NULL) {
			struct buffer *b = g->pool;

			g->pool = b->next;
			g->pooled--;
			buffer_close(b);
			any = true;
		}
	return any;
}

int group_take_buffer(struct group *g, uint8_t n, int64_t before, struct buffer **b)
{
	struct ismfs_procs *procs = g->device->procs;
	size_t size = n == ANY_BUFFER ? default_size() : (size_t)SMC_MIN_BUFFER << n, wanted = size;
	int err;

	*b = from_pool(g, size, n == ANY_BUFFER, before);
	if (*b != NULL) {
		count_one(procs, COUNT_RX_REUSE);
		count_buffer(procs, (*b)->dmb.size);
		return 0;
	}
	for (;;) {
		err = buffer_register(g->device, g->role, size, b);
		if (err == -ENOSPC && drop_pools())
			err = buffer_register(g->device, g->role, size, b);
		if (err == 0)
			break;
		if (err != -ENOMEM || size <= SMC_MIN_BUFFER)
			return device_noted(g->device, err);
		size /= 2;
	}
	count_one(procs, COUNT_RX_ALLOC);
	if (size < wanted)
		count_one(procs, COUNT_RX_DOWNGRADE);
	count_buffer(procs, size);
	return 0;
}

void group_give_buffer(struct group *g, struct buffer *b, bool reusable)
{
	if (!g->inherited)
		count_add(g->device->procs, COUNT_RX_USAGE, -(int64_t)b->dmb.size);
	if (reusable && g->peer != 0 && group_usable(g) && b->epoch == g->epoch && g->pooled < MOST_POOLED) {
		b->pooled = now_ns();
		b->next = g->pool;
		g->pool = b;
		g->pooled++;
	} else {
		buffer_close(b);
	}
}

uint16_t group_take_bit(struct group *g)
{
	if (g->bits_freed > 0)
		return g->bits_free[--g->bits_freed];
	return g->bits_given == PAGE_BITS - 1 ? 0 : ++g->bits_given;
}

void group_give_bit(struct group *g, uint16_t bit)
{
	if (bit == 0)
		return;
	if (g->bits_freed == g->bits_room) {
		uint16_t *more = realloc(g->bits_free, (g->bits_room + 256) * sizeof(*more));

		if (more == NULL)
			return;
		g->bits_free = more;
		g->bits_room += 256;
	}
	g->bits_free[g->bits_freed++] = bit;
}

/* ---- pages ---- */

uint64_t group_own_page(struct group *g)
{
	struct buffer *b;

	if (!g->page_tried) {
		g->page_tried = true;
		if (buffer_register(g->device, g->role, PAGE_SIZE_BYTES, &b) == 0) {
			g->page = page_new(b);
			if (g->page == NULL)
				buffer_close(b);
		}
	}
	return g->page != NULL ? g->page->buffer->dmb.token : 0;
}

int group_join_page(struct group *g, uint64_t token)
{
	struct remote *r;
	int err;

	if (g->page == NULL || token == 0)
		return -EPROTO;
	if (g->peer_page != NULL)
		return g->peer_page->dmb.token == token ? 0 : -EPROTO;
	if (buffer_is_own(token, g->role))
		return -EPROTO;
	err = remote_attach(g->device, token, PAGE_SIZE_BYTES, &r);
	if (err != 0)
		return err;
	if (r->owner != g->peer || r->dmb.map == NULL) {
		remote_close(r);
		return -EPROTO;
	}
	g->peer_page = r;
	g->peer_page_words = (struct stream_page){ r->dmb.map, r->bell };
	return 0;
}

/* ---- */

static void put_blank(unsigned char *to, const char *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = from[i] > ' ' && from[i] < 0x7F ? (unsigned char)from[i] : ' ';
}

void group_describe(struct group *g, const struct clc_answer *peer)
{
	unsigned char b[SLOT_SIZE] = { 0 };
	uint64_t own = g->page != NULL ? g->page->buffer->dmb.token : 0;

	b[4] = 3;
	b[5] = (unsigned char)g->role;
	b[6] = peer->release;
	b[7] = peer->os;
	memcpy(b + 8, &g->id, 4);
	memcpy(b + 12, &g->peer, 4);
	memcpy(b + 16, &own, 8);
	memcpy(b + 24, &peer->page, 8);
	memcpy(b + 32, g->eid, CLC_EID);
	put_blank(b + 64, peer->host, CLC_HOST);
	slot_write(g->device->procs, g->slot, b);
}

/* What the peer has let go of. The device's word tells when there can be some; at most once a second. */
static void drop_lost(struct group *g, int64_t now)
{
	uint32_t word = atomic_load(procs_word(g->device->procs));

	if (word == g->heard || now - g->looked < INT64_C(1000000000))
		return;
	g->heard = word;
	g->looked = now;
	remotes_drop_lost(g);
}

void groups_sweep(int64_t now)
{
	for (struct group *g = groups, *next; g != NULL; g = next) {
		next = g->next;
		drop_lost(g, now);
		if (g->users > 0)
			continue;
		if (!group_usable(g) || procs_state(g->device->procs) != 1 || peer_gone(g) ||
		    now - g->idle_since > (g->role == ROLE_CLIENT ? idle_client_ns : idle_ns))
			group_free(g);
	}
}
