/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The own doorbell page of a link group, on which the group's connections that are in epoll sets, the program's or poll's, sleep
 * (docs/dmb-format.md 2). Whichever thread looks takes the bits for all and hands them on. While threads sleep on the page it says so; who
 * leaves while others stay says so again.
 *
 * Where several sets use a page, a busy process has some threads asleep at any time, and a peer would have to ring for each message. So as
 * long as others are awake and come to look, one of those that sleep, the deputy, sleeps for a short while only, and the page says nothing.
 */
#ifndef PRELOAD_PAGE_H
#define PRELOAD_PAGE_H

#include "../clients/c/stream.h"

struct sock;

struct own_page {
	struct own_page *next; /* of all */
	struct stream_page page;
	_Atomic uint32_t refs; /* the group's, and those of epoll sets */
	_Atomic unsigned int words; /* up to the last bit in use */
	struct lock lock;      /* guards the rest */
	unsigned int sleepers, sets; /* threads, and sets that use it */
	bool deputy;
	bool inherited; /* by a fork: the page says how the parent sleeps */
	_Atomic uint32_t visits; /* of threads that come from the program to wait */
	struct sock **socks; /* by bit */
	unsigned int room;
	struct buffer *buffer;
};

struct own_page *page_new(struct buffer *b);
void page_put(struct own_page *p);
void page_put_locked(struct own_page *p); /* under link_lock */

/* The page with this bell, with a reference; NULL: the number is another descriptor's. */
struct own_page *page_of_bell(int bell);

/* false: no memory. */
bool page_join(struct own_page *p, uint16_t bit, struct sock *s);
void page_leave(struct own_page *p, uint16_t bit);
/*
 * In a child of fork, where threads of its parent's have had references: what it has itself is counted anew, its group's and those of the
 * program's sets.
 */
void page_renew(struct own_page *p, bool of_group);
void page_count_set(struct own_page *p);
/* Of a connection's group. Returns whether the page holds the socket. */
bool page_forked(struct own_page *p, uint16_t bit, const struct sock *s);

/* Take the bits and hand them to whom they concern. */
void page_look(struct own_page *p);

/* One more set uses it, or one less. */
void page_use(struct own_page *p, int sets);

/*
 * Around a sleep on the page's bell. After page_sleep look again. visited: others have come to look since this thread slept last. Returns
 * whether it is the deputy: then it sleeps no longer than PAGE_DEPUTY_NS.
 */
#define PAGE_DEPUTY_NS INT64_C(500000)
bool page_sleep(struct own_page *p, bool visited);
void page_awake(struct own_page *p, bool deputy);

/*
 * The bell was told to a thread, which may not be one of those that sleep: who has rung it takes them for awake. They are said to sleep again,
 * and what came meanwhile is handed on.
 */
void page_heard(struct own_page *p);

#endif
