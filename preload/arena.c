/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "arena.h"
#include "sock.h"

enum { PLACES = 256 };

/* Chunks stay mapped: a descriptor's entry can be looked at while it goes. */
struct chunk {
	struct chunk *next;
	_Atomic unsigned int hint;
	struct shared place[PLACES];
};

static struct chunk *_Atomic chunks;
static struct shared *_Atomic warm; /* the place that this process has given back last: its lines are in the cache */
static struct lock growing;

void arena_forked(void)
{
	atomic_store(&chunks, NULL);
	atomic_store(&warm, NULL);
	growing.word = 0;
}

static bool claim(struct shared *s)
{
	uint32_t unused = 0;

	if (atomic_load_explicit(&s->used, memory_order_relaxed) != 0 || !atomic_compare_exchange_strong(&s->used, &unused, 1))
		return false;
	memset((char *)s + offsetof(struct shared, holders), 0, sizeof(*s) - offsetof(struct shared, holders));
	return true;
}

static struct shared *take_from(struct chunk *c)
{
	unsigned int from = atomic_load_explicit(&c->hint, memory_order_relaxed);

	for (unsigned int i = 0; i < PLACES; i++) {
		struct shared *s = &c->place[(from + i) % PLACES];

		if (!claim(s))
			continue;
		atomic_store_explicit(&c->hint, (from + i + 1) % PLACES, memory_order_relaxed);
		return s;
	}
	return NULL;
}

struct shared *arena_take(void)
{
	struct shared *s = atomic_exchange(&warm, NULL);

	if (s != NULL && claim(s))
		return s;
	s = NULL;
	lock_take(&growing);
	for (struct chunk *c = atomic_load(&chunks); c != NULL && s == NULL; c = c->next)
		s = take_from(c);
	if (s == NULL) {
		struct chunk *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (c != MAP_FAILED) {
			c->next = atomic_load(&chunks);
			atomic_store(&chunks, c);
			s = take_from(c);
		}
	}
	lock_release(&growing);
	return s;
}

void arena_free(struct shared *s)
{
	atomic_store(&s->used, 0);
	atomic_store(&warm, s);
}
