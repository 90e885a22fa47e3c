/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>

#include "../clients/c/internal.h"
#include "kin.h"
#include "traffic.h"

/*
 * ENOUGH connections in a row received less than LITTLE, and no WITHIN_MS passed between the end of one and of the next. A new ring of
 * 1 MiB takes 1 ms of both sides, one of 64 KiB a third (docs/performance.md).
 */
enum { LITTLE = 64 << 10, ENOUGH = 8, WITHIN_MS = 100 };

/* The word that kin share: from above, when the last one ended, in ms, and 8 bits for how many there were in a row. */
enum { COUNT_BITS = 8 };

static uint64_t now_ms(void)
{
	return (uint64_t)now_ns() / 1000000;
}

static bool is_recent(uint64_t word)
{
	return now_ms() - (word >> COUNT_BITS) < WITHIN_MS;
}

static uint64_t count_of(uint64_t word)
{
	return word & ((1 << COUNT_BITS) - 1);
}

void traffic_ended(uint64_t received)
{
	_Atomic uint64_t *place = kin_word();
	uint64_t word = atomic_load_explicit(place, memory_order_relaxed), count = 0;

	if (received < LITTLE)
		count = is_recent(word) ? count_of(word) + 1 : 1;
	if (count > ENOUGH)
		count = ENOUGH;
	atomic_store_explicit(place, now_ms() << COUNT_BITS | count, memory_order_relaxed);
}

bool traffic_is_light(void)
{
	uint64_t word = atomic_load_explicit(kin_word(), memory_order_relaxed);

	return count_of(word) == ENOUGH && is_recent(word);
}
