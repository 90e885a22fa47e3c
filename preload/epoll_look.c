/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a set's connections are ready. */
#define _GNU_SOURCE

#include "epoll_set.h"
#include "handshake.h"
#include "real.h"
#include "table.h"

enum { ALWAYS = EPOLLERR | EPOLLHUP, OUT = EPOLLOUT | EPOLLWRNORM, ITEM_BITS = EPOLLIN | OUT | EPOLLRDNORM | EPOLLRDHUP };

/* ---- items; under the set's lock ---- */

static uint32_t ready_now(const struct item *it)
{
	struct sock *s = it->sock;
	bool told = it->events & EPOLLET && atomic_load(&s->shared->told); /* an edge is told once: who waits on has not asked again */
	uint32_t ready = 0;

	if (sock_kind(s) == SOCK_SMC)
		ready = (uint16_t)stream_ready(&s->stream);
	else if (sock_kind(s) == SOCK_HANDSHAKE)
		ready = (uint16_t)handshake_ready(s, it->fd, told ? 0 : (short)it->events);
	else if (sock_kind(s) == SOCK_FAILED)
		ready = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP;
	return ready & ((it->events & ITEM_BITS) | ALWAYS);
}

/*
 * Tell the peer what to signal. A thread that is blocked on the connection is not overruled, since nobody need come to look at the page soon:
 * when it leaves it hands on by epoll_news.
 */
static void announce_item(struct item *it)
{
	struct sock *s = it->sock;
	uint8_t how = it->page != NULL ? STREAM_ON_PAGE : ISMFS_SLEEPS_ON_BELL;

	lock_take(&s->watching);
	for (enum side side = READER; side < SIDES; side++)
		if ((side == READER || (it->events & OUT)) && s->waiters[side] == 0)
			stream_announce(&s->stream, side, how);
	lock_release(&s->watching);
	stream_settle_cursor(&s->stream);
}

/* Has the peer done anything since an edge was reported that makes another one? */
static bool has_moved(const struct item *it, uint32_t reported)
{
	struct stream_words now = stream_words(&it->sock->stream);
	struct word then = word_unpack(it->seen.consumer), word = word_unpack(now.consumer);

	if (now.producer != it->seen.producer || word.state_flags != then.state_flags)
		return true;
	return (it->events & OUT) && !(reported & OUT) && now.consumer != it->seen.consumer;
}

/* As in TCP, where nothing comes after the FIN: a peer that closes after it has ended what it writes has no news for a reader. */
static bool nothing_since_end(const struct item *it, const struct stream_words *before)
{
	struct word then = word_unpack(before->consumer), now = word_unpack(it->seen.consumer);

	return (then.state_flags & ISMFS_PEER_DONE_WRITING) && it->seen.producer == before->producer && cursor_equal(now.at, then.at);
}

/* Look at one candidate: what is to be reported of it, 0 for nothing. */
static uint32_t look_at(struct item *it)
{
	bool smc = sock_kind(it->sock) == SOCK_SMC;
	struct stream_words before = it->seen;
	uint32_t ready;

	if (smc)
		it->seen = stream_words(&it->sock->stream);
	ready = ready_now(it);
	if (ready == 0 && smc) {
		announce_item(it);
		it->seen = stream_words(&it->sock->stream);
		ready = ready_now(it);
	}
	if (ready == 0)
		return 0;
	if (it->events & EPOLLONESHOT) {
		it->disabled = true;
	} else if (!(it->events & EPOLLET)) {
		set_queue(it);
	} else if (smc) {
		bool again = ready == it->told && nothing_since_end(it, &before);

		it->told = ready;
		announce_item(it); /* in any case: the peer's signal may have taken the last announcement back */
		if (has_moved(it, ready))
			set_queue(it);
		if (again)
			return 0;
	}
	return ready;
}

int set_harvest(struct set *set, struct epoll_event *events, int most)
{
	struct item *end, *it;
	int n = 0;

	lock_take(&set->lock);
	end = set->last;
	while (n < most && (it = set->first) != NULL) {
		uint32_t ready;

		set->first = it->candidate;
		if (set->first == NULL)
			set->last = NULL;
		it->queued = false;
		ready = it->disabled ? 0 : look_at(it);
		if (ready != 0) {
			events[n].events = ready;
			events[n].data = it->data;
			n++;
		}
		if (it == end)
			break;
	}
	lock_release(&set->lock);
	return n;
}

bool set_has_candidates(struct set *set)
{
	bool any;

	lock_take(&set->lock);
	any = set->first != NULL;
	lock_release(&set->lock);
	return any;
}

/* ---- pages ---- */

/* The set's page number i, with a reference; NULL: there are not so many. */
struct own_page *set_page(struct set *set, unsigned int i)
{
	struct own_page *p = NULL;

	lock_take(&set->lock);
	if (i < set->page_count) {
		p = set->pages[i].page;
		atomic_fetch_add(&p->refs, 1);
	}
	lock_release(&set->lock);
	return p;
}

bool set_drain(struct set *set, int bell)
{
	struct own_page *p = NULL;

	lock_take(&set->lock);
	for (unsigned int i = 0; i < set->page_count && p == NULL; i++)
		if (set->pages[i].page->page.bell == bell)
			p = set->pages[i].page;
	if (p != NULL) {
		atomic_fetch_add(&p->refs, 1);
		hidden_drain(bell);
	}
	lock_release(&set->lock);
	if (p == NULL)
		return false;
	page_heard(p);
	page_put(p);
	return true;
}

void set_look(struct set *set)
{
	struct own_page *p;

	set_at_hand = set;
	for (unsigned int i = 0; (p = set_page(set, i)) != NULL; i++) {
		page_look(p);
		page_put(p);
	}
	set_at_hand = NULL;
}

void set_visit(struct set *set)
{
	lock_take(&set->lock);
	set->visits++;
	for (unsigned int i = 0; i < set->page_count; i++)
		atomic_fetch_add_explicit(&set->pages[i].page->visits, 1, memory_order_relaxed);
	lock_release(&set->lock);
}

struct own_page *set_sleep(struct set *set, unsigned int i, bool *deputy)
{
	struct page_use *use;
	struct own_page *p = NULL;
	uint32_t visits;

	lock_take(&set->lock);
	if (i < set->page_count) {
		use = &set->pages[i];
		p = use->page;
		atomic_fetch_add(&p->refs, 1);
		visits = atomic_load_explicit(&p->visits, memory_order_relaxed);
		*deputy = page_sleep(p, visits - use->visits > set->visits);
		use->visits = visits;
	} else {
		set->visits = 0;
	}
	lock_release(&set->lock);
	return p;
}
