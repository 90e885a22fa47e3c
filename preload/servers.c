/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "../clients/c/internal.h"
#include "plain.h"
#include "servers.h"

/* With what plain.c adds, 20 ms. */
enum { SERVERS = 64, ENOUGH = 8, FOR_MS = 18 };

/*
 * A word for each, by the hash of its address; another one's takes its place. From above: 32 bits that tell whose it is, 4 how often in a
 * row it was plain, up to ENOUGH, and 28 when it was last, in ms, or when it last took up SMC, if it was not plain. 0: nothing.
 */
HOT_DATA static _Atomic uint64_t servers[SERVERS];
enum { TIME_BITS = 28, COUNT_BITS = 4 };
static const uint64_t time_mask = (1 << TIME_BITS) - 1, count_mask = (1 << COUNT_BITS) - 1;

static uint64_t mix(uint64_t hash, const void *bytes, size_t n)
{
	uint64_t part = 0;

	memcpy(&part, bytes, n);
	hash = (hash ^ part) * UINT64_C(0x9E3779B97F4A7C15);
	return hash ^ hash >> 29;
}

static uint64_t hash_of(const union address *a)
{
	uint64_t hash;

	if (a->any.sa_family == AF_INET)
		return mix(mix(AF_INET, &a->four.sin_port, 2), &a->four.sin_addr, 4);
	hash = mix(mix(AF_INET6, &a->six.sin6_port, 2), &a->six.sin6_scope_id, 4);
	return mix(mix(hash, a->six.sin6_addr.s6_addr, 8), a->six.sin6_addr.s6_addr + 8, 8);
}

/* What is known of one; 0: nothing. */
static uint64_t word_of(const union address *a)
{
	uint64_t hash, word;

	if (!address_known(a))
		return 0;
	hash = hash_of(a);
	word = atomic_load_explicit(&servers[hash % SERVERS], memory_order_relaxed);
	return word >> 32 == hash >> 32 ? word : 0;
}

static unsigned int count_of(uint64_t word)
{
	return word >> TIME_BITS & count_mask;
}

static uint64_t now_ms(void)
{
	return (uint64_t)now_ns() / 1000000 & time_mask;
}

static void note(const union address *a, unsigned int count)
{
	uint64_t hash;

	if (!address_known(a))
		return;
	hash = hash_of(a);
	atomic_store_explicit(&servers[hash % SERVERS], hash >> 32 << 32 | (uint64_t)count << TIME_BITS | now_ms(), memory_order_relaxed);
}

bool servers_plain(const union address *a)
{
	uint64_t word = word_of(a);

	return count_of(word) == ENOUGH && ((now_ms() - word) & time_mask) < FOR_MS;
}

void servers_said_plain(const union address *a)
{
	unsigned int count = count_of(word_of(a));

	note(a, count < ENOUGH ? count + 1 : ENOUGH);
}

void servers_said_other(const union address *a)
{
	plain_not_again();
	if (count_of(word_of(a)) != 0)
		atomic_store_explicit(&servers[hash_of(a) % SERVERS], 0, memory_order_relaxed);
}

void servers_took_up(const union address *a)
{
	plain_not_again();
	note(a, 0);
}

int64_t servers_taken_up_at(const union address *a)
{
	uint64_t word = word_of(a);

	if (word == 0 || count_of(word) != 0)
		return 0;
	return now_ns() - (int64_t)((now_ms() - word) & time_mask) * 1000000;
}
