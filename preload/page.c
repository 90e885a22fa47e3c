/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "epoll.h"
#include "page.h"
#include "real.h"
#include "sock.h"

static struct own_page *pages; /* under link_lock */

struct own_page *page_new(struct buffer *b)
{
	struct own_page *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->refs = 1;
	p->buffer = b;
	p->page = (struct stream_page){ b->dmb.map, b->bell };
	b->dmb.map[0] = PAGE_TYPE;
	p->next = pages;
	pages = p;
	return p;
}

struct own_page *page_of_bell(int bell)
{
	struct own_page *p;

	lock_take(&link_lock);
	for (p = pages; p != NULL && p->page.bell != bell; p = p->next)
		;
	if (p != NULL)
		atomic_fetch_add(&p->refs, 1);
	lock_release(&link_lock);
	return p;
}

void page_put_locked(struct own_page *p)
{
	if (atomic_fetch_sub(&p->refs, 1) != 1)
		return;
	for (struct own_page **at = &pages; *at != NULL; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	buffer_close(p->buffer);
	free(p->socks);
	free(p);
}

/* The last user closes the DMB, under link_lock as all DMBs. */
void page_put(struct own_page *p)
{
	uint32_t refs = atomic_load(&p->refs);

	while (refs > 1)
		if (atomic_compare_exchange_weak(&p->refs, &refs, refs - 1))
			return;
	lock_take(&link_lock);
	page_put_locked(p);
	lock_release(&link_lock);
}

bool page_join(struct own_page *p, uint16_t bit, struct sock *s)
{
	lock_take(&p->lock);
	if (bit >= p->room) {
		unsigned int room = (bit + 64u) & ~63u;
		struct sock **more = realloc(p->socks, room * sizeof(struct sock *));

		if (more == NULL) {
			lock_release(&p->lock);
			return false;
		}
		memset(more + p->room, 0, (room - p->room) * sizeof(struct sock *));
		p->socks = more;
		p->room = room;
		atomic_store(&p->words, room / 64);
	}
	atomic_fetch_add(&s->refs, 1);
	p->socks[bit] = s;
	lock_release(&p->lock);
	return true;
}

void page_leave(struct own_page *p, uint16_t bit)
{
	struct sock *s = NULL;

	lock_take(&p->lock);
	if (bit < p->room) {
		s = p->socks[bit];
		p->socks[bit] = NULL;
	}
	lock_release(&p->lock);
	if (s != NULL)
		sock_put(s);
}

void page_renew(struct own_page *p, bool of_group)
{
	p->lock.word = 0;
	p->inherited = true;
	p->refs = of_group;
	p->sets = 0;
}

void page_count_set(struct own_page *p)
{
	p->refs++;
	p->sets++;
}

bool page_forked(struct own_page *p, uint16_t bit, const struct sock *s)
{
	page_renew(p, true);
	return bit < p->room && p->socks[bit] == s;
}

/* Bits that are nobody's are ignored. Whom they concern hears of it without the page's lock. */
static void hand_on(struct own_page *p, unsigned int word, uint64_t bits)
{
	struct sock *found[64];
	unsigned int n = 0;

	lock_take(&p->lock);
	for (; bits != 0; bits &= bits - 1) {
		struct sock *s = p->socks[64 * word + (unsigned int)__builtin_ctzll(bits)];

		if (s == NULL)
			continue;
		atomic_fetch_add(&s->refs, 1);
		found[n++] = s;
	}
	lock_release(&p->lock);
	while (n > 0) {
		epoll_news(found[--n]);
		sock_put(found[n]);
	}
}

void page_look(struct own_page *p)
{
	unsigned int words = atomic_load(&p->words);

	for (unsigned int w = 0; w < words; w++) {
		uint64_t bits = page_take(&p->page, w);

		if (bits != 0)
			hand_on(p, w, bits);
	}
}

void page_use(struct own_page *p, int sets)
{
	lock_take(&p->lock);
	p->sets += (unsigned int)sets;
	lock_release(&p->lock);
}

/* Under the page's lock. */
static void say(struct own_page *p, bool asleep)
{
	atomic_store(page_wait(&p->page), asleep ? ISMFS_SLEEPS_ON_BELL : ISMFS_AWAKE);
}

bool page_sleep(struct own_page *p, bool visited)
{
	bool all, deputy = false;

	lock_take(&p->lock);
	all = ++p->sleepers >= p->sets;
	if (!all && visited && !p->deputy)
		p->deputy = deputy = true;
	say(p, all || !p->deputy);
	lock_release(&p->lock);
	return deputy;
}

void page_heard(struct own_page *p)
{
	lock_take(&p->lock);
	if (p->sleepers > 0 && !p->deputy) /* else what another process that has the page says stays */
		say(p, true);
	lock_release(&p->lock);
	page_look(p);
}

void page_awake(struct own_page *p, bool deputy)
{
	lock_take(&p->lock);
	p->sleepers--;
	if (deputy)
		p->deputy = false;
	say(p, p->sleepers > 0 && !p->deputy);
	lock_release(&p->lock);
}
