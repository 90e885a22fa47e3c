/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets that are looked at from outside: in another set, or by poll. The kernel's set has to be readable then whenever a connection in it is
 * ready, also while nobody waits in it. So on its way out a thread leaves the sleep on the pages announced, whose bells are in the kernel's
 * set; and while there are candidates the kick stays readable. At worst somebody looks in vain.
 */
#define _GNU_SOURCE
#include "epoll_set.h"
#include "real.h"
#include "table.h"

/* Announce a sleep on all pages, or take it back. */
static void announce_pages(struct set *set, bool shown)
{
	lock_take(&set->lock);
	for (unsigned int i = 0; i < set->page_count; i++) {
		struct page_use *use = &set->pages[i];

		if (use->shown)
			page_awake(use->page, false);
		if (shown)
			(void)page_sleep(use->page, false);
		use->shown = shown;
	}
	lock_release(&set->lock);
}

void set_show(struct set *set)
{
	if (atomic_load(&set->nested)) {
		announce_pages(set, true);
		set_look(set);
	} else if (atomic_load(&set->sleeping) == 0) {
		return;
	}
	if (set_has_candidates(set))
		set_kick(set);
}

void set_hide(struct set *set)
{
	if (!atomic_load(&set->nested))
		return;
	announce_pages(set, false);
	hidden_drain(set->kick);
	atomic_store(&set->kicked, false);
}

void epoll_nested(int fd)
{
	struct set *set = set_any() ? set_get(fd) : NULL;

	if (set == NULL)
		return;
	if (!atomic_exchange(&set->nested, true)) {
		hidden_drain(set->kick); /* edge-triggered so far, and never read */
		atomic_store(&set->kicked, false);
		(void)set_control(set->fd, EPOLL_CTL_MOD, set->kick, EPOLLIN, mark_data(MARK_KICK, 0));
		set_show(set);
	}
	set_put(set);
}
