/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "debug.h"
#include "ending.h"
#include "group.h"
#include "sock.h"
#include "spin.h"

struct lock link_lock;

/* The decline code for an error of a device's operation (smc_buf_create, smcd_new_buf_create). */
static int64_t reason(struct device *d, int err)
{
	device_noted(d, err);
	debug("the device says: %s", strerror(-err));
	if (err == -ENOSPC)
		return SMC_DECL_MAX_DMB;
	if (err == -ENODEV || err == -ENOTCONN || err == -ECONNABORTED)
		return SMC_DECL_NOSMCDEV;
	return SMC_DECL_MEM;
}

/* ---- forks ---- */

void link_await(struct link *l)
{
	if (l->group == NULL || l->awaited)
		return;
	l->awaited = true;
	l->group->awaited++;
}

static void await_no_more(struct link *l)
{
	if (!l->awaited)
		return;
	l->awaited = false;
	if (--l->group->awaited == 0)
		remotes_close(l->group);
}

/* Groups that new connections do not find any more are the parent's, too; and of peers' DMBs only those of connections are in use. */
void link_renew(struct link *l)
{
	if (l->group != NULL)
		l->group->inherited = true;
	if (l->peer != NULL)
		l->peer->in_use = true;
}

/* ---- the end ---- */

void link_finish(struct link *l, bool own, bool peers)
{
	struct group *g = l->group;

	if (l->peer != NULL) {
		if (l->peer->stand_in)
			own = peers = false;
		if (peers && g != NULL && group_usable(g))
			l->peer->in_use = false;
		else
			remote_leave(l->peer);
	}
	if (l->own != NULL)
		group_give_buffer(g, l->own, own);
	await_no_more(l);
	if (g != NULL) {
		group_give_bit(g, l->own_bit);
		group_leave(g);
	}
}

/* ---- handshakes ---- */

/* As it was at the first handshake. Under link_lock. */
static void put_host(char host[CLC_HOST])
{
	static char name[CLC_HOST * 2];
	size_t n;

	if (name[0] == '\0')
		(void)gethostname(name, sizeof(name) - 1);
	n = strlen(name);
	memset(host, ' ', CLC_HOST);
	memcpy(host, name, n < CLC_HOST ? n : CLC_HOST);
}

/* This side's message, after which the peer knows the DMB's token. */
static void fill(struct link *l, struct device *d, uint8_t type, uint64_t page, struct clc_answer *a)
{
	l->told = true;
	a->type = type;
	a->first_contact = l->first;
	memcpy(a->gid, d->gid, CLC_GID);
	a->token = l->own->dmb.token;
	a->index = 0;
	a->size = smc_compress_buffer(l->own->dmb.size);
	a->bit = l->own_bit;
	a->link = l->group->id;
	a->chid = CLC_CHID_LOOPBACK;
	a->os = CLC_OS_LINUX;
	a->version = 2;
	a->type_v1 = 1;
	put_host(a->host);
	a->process = l->group->peer != 0 ? procs_id(d->procs) : 0;
	a->page = l->group->peer != 0 ? page : 0;
}

int64_t link_serve(struct link *l, struct device *d, uint32_t peer, uint8_t size, struct clc_answer *accept)
{
	int64_t code = 0;
	int err;

	memset(l, 0, sizeof(*l));
	lock_take(&link_lock);
	endings_sweep(now_ns());
	l->group = group_of_client(d, peer, accept->eid);
	err = l->group == NULL ? -ENOMEM : group_take_buffer(l->group, size, INT64_MAX, &l->own);
	if (err == 0) {
		l->first = !l->group->known;
		l->own_bit = group_take_bit(l->group);
		fill(l, d, CLC_ACCEPT, l->first && peer != 0 ? group_own_page(l->group) : 0, accept);
	} else {
		code = reason(d, err);
	}
	lock_release(&link_lock);
	if (code != 0)
		link_abandon(l, false);
	return code;
}

/*
 * One that stayed attached. Its owner offers it again as soon as both sides have closed, which another thread here may still be at work on:
 * that is waited for.
 */
static struct remote *resting(uint64_t token)
{
	enum { STEP_US = 100, STEPS = 10000 };
	struct remote *r = remote_find(token);

	for (int i = 0; r != NULL && r->in_use && i < STEPS; i++) {
		lock_release(&link_lock);
		usleep(STEP_US);
		lock_take(&link_lock);
		endings_sweep(now_ns());
		r = remote_find(token);
	}
	return r;
}

/* Attaches a peer's DMB, or takes the one that stayed attached. */
static int attach(struct link *l, struct device *d, enum role role, const struct clc_answer *from)
{
	size_t size = (size_t)SMC_MIN_BUFFER << from->size;
	struct remote *r = resting(from->token);

	if (from->size > SMC_MAX_COMPRESSED || buffer_is_own(from->token, role))
		return -EPROTO;
	if (r == NULL) {
		int err = remote_attach(d, from->token, size, &l->peer);

		if (err == 0)
			l->peer->of_child = l->group != NULL && l->group->inherited;
		return device_noted(d, err);
	}
	if (r->in_use)
		return -EBUSY;
	if (r->dmb.size != size) {
		remote_close(r);
		return -EMSGSIZE;
	}
	r->in_use = true;
	r->group = l->group; /* a client's is known when it has seen whose DMB it is */
	l->peer = r;
	return 0;
}

static int confirm_locked(struct link *l, struct device *d, const struct clc_answer *confirm)
{
	struct group *g = l->group;
	int err = attach(l, d, ROLE_SERVER, confirm);

	await_no_more(l);
	if (err != 0)
		return err;
	if (g->peer != 0 && l->peer->owner != g->peer)
		return -EPROTO;
	l->peer->group = g;
	l->peer_bit = confirm->bit;
	if (confirm->first_contact && confirm->page != 0) {
		err = group_join_page(g, confirm->page);
		if (err != 0) {
			group_retire(g); /* a child of fork may be attached to it: the next connections begin anew */
			return err;
		}
	}
	l->pages = (!confirm->first_contact || confirm->page != 0) && group_has_pages(g);
	if (confirm->first_contact)
		group_describe(g, confirm);
	g->confirmed = g->known = g->peer != 0;
	return 0;
}

int64_t link_confirmed(struct link *l, struct device *d, const struct clc_answer *confirm)
{
	int err;

	lock_take(&link_lock);
	endings_sweep(now_ns());
	err = confirm_locked(l, d, confirm);
	if (err == -ENOENT) {
		l->lost = (size_t)SMC_MIN_BUFFER << confirm->size;
		l->pages = false;
		if (l->peer != NULL)
			remote_close(l->peer);
		l->peer = NULL;
	}
	lock_release(&link_lock);
	return err;
}

int link_outlive(struct link *l)
{
	return buffer_was_met(l->own) ? remote_stand_in(l->lost, &l->peer) : -ENOENT;
}

/*
 * A server may have forked since it has answered, and its child is attached to no DMB of later connections. When it has answered nobody can tell
 * where the answer was not taken at once.
 */
static int64_t attached_before(int64_t proposed)
{
	enum { AT_ONCE_NS = 20000000 };

	return now_ns() - proposed < AT_ONCE_NS ? INT64_MAX : proposed;
}

static int64_t connect_locked(struct link *l, struct device *d, const struct clc_answer *accept, int64_t proposed, uint8_t size,
			      struct clc_answer *confirm)
{
	struct group *g;
	int err = attach(l, d, ROLE_CLIENT, accept);

	if (err != 0)
		return reason(d, err);
	if (accept->process != 0 && accept->process != l->peer->owner)
		return SMC_DECL_MEM;
	l->first = accept->first_contact;
	g = l->group = group_of_server(d, l->peer->owner, accept->link, l->first, accept->eid);
	if (g == NULL)
		return l->first ? SMC_DECL_MEM : SMC_DECL_SYNCERR;
	l->peer->group = g;
	l->peer_bit = accept->bit;
	err = group_take_buffer(g, size, attached_before(proposed), &l->own);
	if (err != 0)
		return reason(d, err);
	l->own_bit = group_take_bit(g);
	if (!l->first)
		l->pages = group_has_pages(g);
	else if (accept->page != 0 && group_own_page(g) != 0)
		l->pages = group_join_page(g, accept->page) == 0;
	if (l->first)
		group_describe(g, accept);
	confirm->release = accept->release;
	confirm->features = accept->features & CLC_EMULATED_ISM;
	memcpy(confirm->eid, accept->eid, CLC_EID);
	fill(l, d, CLC_CONFIRM, l->pages ? group_own_page(g) : 0, confirm);
	if (!l->pages)
		confirm->bit = 0;
	return 0;
}

int64_t link_connect(struct link *l, struct device *d, const struct clc_answer *accept, int64_t proposed, uint8_t size,
		     struct clc_answer *confirm)
{
	int64_t code;

	memset(l, 0, sizeof(*l));
	lock_take(&link_lock);
	endings_sweep(now_ns());
	code = connect_locked(l, d, accept, proposed, size, confirm);
	lock_release(&link_lock);
	if (code != 0)
		link_abandon(l, false);
	return code;
}

void link_abandon(struct link *l, bool out_of_sync)
{
	lock_take(&link_lock);
	if (out_of_sync && l->group != NULL)
		l->group->known = false;
	if (l->own != NULL && l->told) {
		group_give_buffer(l->group, l->own, false);
		l->own = NULL;
	}
	link_finish(l, l->peer == NULL, false);
	memset(l, 0, sizeof(*l)); /* before a fork can copy it */
	lock_release(&link_lock);
}

int link_open(struct link *l, struct device *d, struct sock *s)
{
	struct stream *t = &s->stream;

	l->pages = l->pages && l->own_bit != 0 && l->peer_bit != 0 && l->peer_bit < PAGE_BITS;
	memset(&s->shared->stream, 0, sizeof(s->shared->stream));
	*t = (struct stream){
		.state = &s->shared->stream, .own = l->own->dmb.map, .peer = l->peer->dmb.map, .own_fd = l->own->dmb.fd,
		.peer_fd = l->peer->dmb.fd, .own_bell = l->own->bell, .peer_bell = l->peer->bell, .separated = l->own->separated,
		.procs = d->procs, .epoch = l->own->epoch, .peer_bit = l->peer_bit,
		.peer_page = l->pages ? &l->group->peer_page_words : NULL,
	};
	if (!procs_epoch_valid(d->procs, t->epoch))
		return -ECONNABORTED;
	if (l->pages && !page_join(l->group->page, l->own_bit, s)) {
		l->pages = false;
		t->peer_page = NULL;
	}
	s->heard = atomic_load(procs_word(d->procs));
	stream_open(t, l->own->dmb.size, l->peer->dmb.size);
	count_one(d->procs, l->group->role == ROLE_CLIENT ? COUNT_CLIENT_V2 : COUNT_SERVER_V2);
	return 0;
}

void link_leave_page(struct link *l)
{
	if (l->pages)
		page_leave(l->group->page, l->own_bit);
}

uint32_t link_id(const struct link *l)
{
	return l->group != NULL ? l->group->id : 0;
}

uint64_t link_token(const struct link *l)
{
	return l->own != NULL ? l->own->dmb.token : 0;
}

uint64_t link_peer_token(const struct link *l)
{
	return l->peer != NULL ? l->peer->dmb.token : 0;
}

struct own_page *link_page(const struct link *l)
{
	return l->pages && !l->group->inherited ? l->group->page : NULL;
}

bool link_shares_cpu(const struct link *l, int64_t now)
{
	uint32_t here = spin_place(now);
	struct own_page *page = link_page(l);
	_Atomic uint32_t *said;

	if (page == NULL)
		return here != 0;
	said = page_place(&page->page);
	if (atomic_load_explicit(said, memory_order_relaxed) != here)
		atomic_store_explicit(said, here, memory_order_relaxed);
	return here != 0 && here == atomic_load_explicit(page_place(&l->group->peer_page_words), memory_order_relaxed);
}
