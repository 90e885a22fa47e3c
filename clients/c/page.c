/* SPDX-License-Identifier: Apache-2.0 */
/* Doorbell pages (docs/dmb-format.md 2). */
#include "stream.h"

enum { PAGE_SEQ = 24, PAGE_WAIT = 28, PAGE_PLACE = 32, PAGE_FIRST = 64 };

_Atomic uint32_t *page_wait(const struct stream_page *p)
{
	return (_Atomic uint32_t *)(void *)(p->map + PAGE_WAIT);
}

_Atomic uint32_t *page_place(const struct stream_page *p)
{
	return (_Atomic uint32_t *)(void *)(p->map + PAGE_PLACE);
}

static _Atomic uint64_t *page_word(const struct stream_page *p, unsigned int word)
{
	return (_Atomic uint64_t *)(void *)(p->map + PAGE_FIRST + 8 * word);
}

bool page_has_bits(const struct stream_page *p, unsigned int words)
{
	for (unsigned int w = 0; w < words; w++)
		if (atomic_load_explicit(page_word(p, w), memory_order_relaxed) != 0)
			return true;
	return false;
}

uint64_t page_take(const struct stream_page *p, unsigned int word)
{
	if (atomic_load_explicit(page_word(p, word), memory_order_relaxed) == 0)
		return 0;
	return atomic_exchange(page_word(p, word), 0);
}

/* Set the bit, then look whether the owner sleeps, then awake, sequence, wake: any other order loses wake-ups. */
void page_ring(const struct stream_page *p, uint16_t bit)
{
	_Atomic uint32_t *sequence = (_Atomic uint32_t *)(void *)(p->map + PAGE_SEQ);
	uint32_t how;

	atomic_fetch_or(page_word(p, bit / 64), UINT64_C(1) << bit % 64);
	how = atomic_load(page_wait(p));
	if (how == ISMFS_AWAKE || !atomic_compare_exchange_strong(page_wait(p), &how, ISMFS_AWAKE))
		return;
	atomic_fetch_add(sequence, 1);
	if (how == ISMFS_SLEEPS_ON_FUTEX)
		futex_wake_all(sequence, true);
	else
		bell_ring(p->bell);
}
