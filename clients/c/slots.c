/* SPDX-License-Identifier: Apache-2.0 */
/* The head and the slots of a procs block (docs/dmb-format.md 3.1, 3.3). */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "procs.h"

enum { HEAD_ID = 8, HEAD_WORD = 12, HEAD_STATE = 16, HEAD_SETTINGS = 20, HEAD_EPOCH = 24, HEAD_DOES = 32, FIRST_SLOT = 2048, PAGE = 4096 };

static HOT _Atomic uint32_t *word32(const struct ismfs_procs *procs, size_t offset)
{
	return (_Atomic uint32_t *)(void *)(procs->map + offset);
}

static HOT _Atomic uint64_t *word64(const struct ismfs_procs *procs, size_t offset)
{
	return (_Atomic uint64_t *)(void *)(procs->map + offset);
}

uint32_t procs_id(const struct ismfs_procs *procs)
{
	return atomic_load_explicit(word32(procs, HEAD_ID), memory_order_relaxed);
}

_Atomic uint32_t *procs_word(const struct ismfs_procs *procs)
{
	return word32(procs, HEAD_WORD);
}

int procs_state(const struct ismfs_procs *procs)
{
	return (int)atomic_load(word32(procs, HEAD_STATE));
}

uint64_t procs_epoch(const struct ismfs_procs *procs)
{
	return atomic_load(word64(procs, HEAD_EPOCH));
}

int procs_dmb_type(const struct ismfs_procs *procs)
{
	return (int)(atomic_load(word32(procs, HEAD_SETTINGS)) & 1);
}

bool procs_separated(const struct ismfs_procs *procs)
{
	return atomic_load(word32(procs, HEAD_SETTINGS)) & 2;
}

bool procs_may_look(const struct ismfs_procs *procs)
{
	return !(atomic_load(word32(procs, HEAD_SETTINGS)) & 8);
}

HOT bool procs_finds(const struct ismfs_procs *procs)
{
	return atomic_load_explicit(word32(procs, HEAD_DOES), memory_order_relaxed) & 1;
}

bool procs_epoch_valid(const struct ismfs_procs *procs, uint64_t epoch)
{
	return procs_epoch(procs) == epoch && procs_state(procs) != 0;
}

static bool populate_to(struct ismfs_procs *procs, size_t end)
{
	size_t have = atomic_load(&procs->populated);

	if (end <= have)
		return true;
	if (populate_more(procs->map + have, PAGE) != 0)
		return false;
	atomic_store(&procs->populated, have + PAGE);
	return true;
}

/* A free slot's first word is even and its kind 0; whoever makes it odd has it. One that is odd is not listed. */
static bool claim(struct ismfs_procs *procs, size_t at)
{
	const _Atomic uint8_t *kind = (_Atomic uint8_t *)(procs->map + at + 4);
	uint32_t sequence = atomic_load(word32(procs, at));

	return !(sequence & 1) && atomic_load(kind) == 0 && atomic_compare_exchange_strong(word32(procs, at), &sequence, sequence + 1);
}

static size_t claim_between(struct ismfs_procs *procs, size_t from, size_t to)
{
	for (size_t at = from; at + SLOT_SIZE <= to; at += SLOT_SIZE)
		if (claim(procs, at)) {
			atomic_store(&procs->hint, at + SLOT_SIZE);
			return at;
		}
	return 0;
}

/* From where the last one was; what other processes have freed before it is found before another page is brought in. */
uint32_t slot_take(struct ismfs_procs *procs)
{
	size_t hint = atomic_load(&procs->hint), end = atomic_load(&procs->populated), at;

	if (hint < FIRST_SLOT)
		hint = FIRST_SLOT;
	at = claim_between(procs, hint, end);
	if (at == 0)
		at = claim_between(procs, FIRST_SLOT, end);
	if (at == 0 && end + PAGE <= procs->size && populate_to(procs, end + PAGE))
		at = claim_between(procs, end, end + PAGE);
	return (uint32_t)at;
}

HOT void slot_write(struct ismfs_procs *procs, uint32_t slot, const unsigned char b[SLOT_SIZE])
{
	uint32_t sequence, four;
	uint64_t eight;

	if (slot == 0)
		return;
	sequence = atomic_load(word32(procs, slot)) | 1;
	atomic_store_explicit(word32(procs, slot), sequence, memory_order_relaxed);
	memcpy(&four, b + 4, 4);
	atomic_store_explicit(word32(procs, slot + 4), four, memory_order_release); /* each after the sequence, which says that they change */
	for (size_t at = 8; at < SLOT_SIZE; at += 8) {
		memcpy(&eight, b + at, 8);
		atomic_store_explicit(word64(procs, slot + at), eight, memory_order_release);
	}
	atomic_store_explicit(word32(procs, slot), sequence + 1, memory_order_release);
}

/* Up to what is reserved at the end. Not by memcmp, whose page would have to be found (hot.h). */
HOT bool slot_says(const struct ismfs_procs *procs, uint32_t slot, const unsigned char b[SLOT_SIZE])
{
	enum { SAID = 88 };
	uint32_t four;
	uint64_t eight;

	memcpy(&four, b + 4, 4);
	if (atomic_load_explicit(word32(procs, slot + 4), memory_order_relaxed) != four)
		return false;
	for (size_t at = 8; at < SAID; at += 8) {
		memcpy(&eight, b + at, 8);
		if (atomic_load_explicit(word64(procs, slot + at), memory_order_relaxed) != eight)
			return false;
	}
	return true;
}

void slot_read(const struct ismfs_procs *procs, uint32_t slot, unsigned char b[SLOT_SIZE])
{
	for (size_t at = 0; at < SLOT_SIZE; at += 8) {
		uint64_t eight = atomic_load_explicit(word64(procs, slot + at), memory_order_relaxed);

		memcpy(b + at, &eight, 8);
	}
}

/* Slots are taken from the first page on, so where none of a page was ever taken there are no more. */
void slots_found(struct ismfs_procs *procs, void (*f)(struct ismfs_procs *procs, uint32_t slot))
{
	bool any = procs->found;

	for (size_t at = FIRST_SLOT, end = PAGE; any && end <= procs->size && populate_to(procs, end); end += PAGE) {
		any = false;
		for (; at < end; at += SLOT_SIZE) {
			if (atomic_load(word32(procs, at)) == 0)
				continue;
			any = true;
			f(procs, (uint32_t)at);
		}
	}
	procs->found = false;
}

void slot_free(struct ismfs_procs *procs, uint32_t slot)
{
	static const unsigned char nothing[SLOT_SIZE];

	slot_write(procs, slot, nothing);
	if (slot != 0 && slot < atomic_load(&procs->hint))
		atomic_store(&procs->hint, slot);
}
