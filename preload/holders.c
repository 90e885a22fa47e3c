/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"
#include "holders.h"
#include "sock.h"

static void add(struct places *p, unsigned int place)
{
	uint64_t bit = UINT64_C(1) << place % 64;

	if (place == 0) {
		p->unplaced++;
	} else if (!(p->bits[place / 64] & bit)) {
		kin_named(place, 1); /* first: killed in between, at worst the place is never given to another */
		p->bits[place / 64] |= bit;
	}
}

static void take_away(struct places *p, unsigned int place)
{
	uint64_t bit = UINT64_C(1) << place % 64;

	if (place == 0) {
		p->unplaced--;
	} else if (p->bits[place / 64] & bit) {
		p->bits[place / 64] &= ~bit;
		kin_named(place, -1);
	}
}

/* Takes away the dead, all or up to the first one that lives. Returns whether anybody lives. */
static bool any_lives(struct places *p, bool all)
{
	bool lives = p->unplaced > 0;

	for (unsigned int i = 0; i < KIN / 64 && (all || !lives); i++)
		for (uint64_t bits = p->bits[i]; bits != 0 && (all || !lives); bits &= bits - 1) {
			unsigned int place = 64 * i + (unsigned int)__builtin_ctzll(bits);

			if (kin_lives(place))
				lives = true;
			else
				take_away(p, place);
		}
	return lives;
}

void holders_begin(struct sock *s)
{
	s->place = kin_self();
	add(&s->shared->holders.all, s->place);
	add(&s->shared->holders.ends, s->place);
}

/* One from before this process had a place. */
static void move(struct places *p, unsigned int place)
{
	take_away(p, 0);
	add(p, place);
}

/* Whether this process could be the last one to close: until another one has claimed the connection. */
static bool is_end(const struct sock *s)
{
	return atomic_load(&s->shared->kind) != SOCK_SMC || s->stream.own != NULL;
}

void holders_expect(struct sock *s, unsigned int child)
{
	struct holders *h = &s->shared->holders;
	unsigned int self = kin_self();
	bool end;

	lock_take(&h->lock);
	end = is_end(s);
	if (s->place != self) {
		move(&h->all, self);
		if (end)
			move(&h->ends, self);
		s->place = self;
	}
	add(&h->all, child);
	if (end)
		add(&h->ends, child);
	lock_release(&h->lock);
}

void holders_claim(struct sock *s)
{
	struct holders *h = &s->shared->holders;

	lock_take(&h->lock);
	for (unsigned int i = 0; i < KIN / 64; i++)
		while (h->ends.bits[i] != 0)
			take_away(&h->ends, 64 * i + (unsigned int)__builtin_ctzll(h->ends.bits[i]));
	h->ends.unplaced = 0;
	add(&h->ends, s->place);
	atomic_store_explicit(&s->shared->kind, SOCK_SMC, memory_order_release);
	lock_release(&h->lock);
}

bool holders_close(struct sock *s)
{
	struct holders *h = &s->shared->holders;
	bool last = false;

	lock_take(&h->lock);
	if (s->held && is_end(s)) {
		take_away(&h->ends, s->place);
		last = !any_lives(&h->ends, false);
		if (last)
			add(&h->ends, s->place);
	}
	lock_release(&h->lock);
	return last;
}

bool holders_alone(struct sock *s)
{
	struct holders *h = &s->shared->holders;
	bool alone;

	lock_take(&h->lock);
	take_away(&h->all, s->place);
	alone = !any_lives(&h->all, false);
	add(&h->all, s->place);
	lock_release(&h->lock);
	return alone;
}

bool holders_deserted(struct shared *sh)
{
	bool deserted;

	lock_take(&sh->holders.lock);
	deserted = !any_lives(&sh->holders.ends, false);
	lock_release(&sh->holders.lock);
	return deserted;
}

void holders_leave(struct shared *sh, unsigned int place, bool end)
{
	bool last;

	lock_take(&sh->holders.lock);
	if (end)
		take_away(&sh->holders.ends, place);
	take_away(&sh->holders.all, place);
	last = !any_lives(&sh->holders.all, false);
	if (last)
		(void)any_lives(&sh->holders.ends, true);
	lock_release(&sh->holders.lock);
	if (last)
		arena_free(sh);
}

void holders_bury(struct sock *s, int fd)
{
	struct holders *h = &s->shared->holders;

	(void)fd;
	lock_take(&h->lock);
	(void)any_lives(&h->ends, true);
	(void)any_lives(&h->all, true);
	lock_release(&h->lock);
}
