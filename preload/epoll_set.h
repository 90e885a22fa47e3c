/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of epoll share. Locks are taken in the order page, listing (of a socket), set, watching (of a socket). */
#ifndef PRELOAD_EPOLL_SET_H
#define PRELOAD_EPOLL_SET_H

#include <signal.h>
#include <sys/epoll.h>

#include "epoll.h"
#include "page.h"
#include "signals.h"
#include "sock.h"

struct set;

/* Pages that a thread announces its sleep on; connections of more processes than that sleep on their own bells. */
enum { MOST_PAGES = 64 };

struct item {
	struct set *set;
	struct sock *sock; /* a reference */
	int fd;
	uint32_t events; /* as the program wants them */
	epoll_data_t data;
	bool queued, disabled, on_bell, due; /* disabled: EPOLLONESHOT has shot, it is parked, or this call of poll does not ask for it */
	bool parked;      /* the program has taken it out; changed under listing and the set's lock */
	bool parked_long; /* before the last tick */
	uint32_t round; /* of the last call of poll that asked for it */
	struct own_page *page;
	struct stream_words seen;    /* at the last report, of an edge-triggered one */
	uint32_t told;               /* what that said; 0: nothing since the program has asked */
	struct item *_Atomic next;   /* of the socket's, under listing */
	struct item *before, *after; /* of the set's */
	struct item *candidate;      /* the next one */
};

struct set {
	_Atomic int fd;       /* one of its numbers, of which the table has each, with a reference */
	unsigned int numbers; /* under the lock of the table's */
	_Atomic uint32_t refs;
	_Atomic unsigned int count;    /* items */
	_Atomic unsigned int sleeping; /* threads in the kernel's epoll_wait, or about to be */
	int kick;                      /* an eventfd in the kernel's set, edge-triggered: nobody has to read it */
	atomic_bool kicked;            /* and a thread is on its way that will look */
	_Atomic int64_t asked;         /* when the kernel was asked last */
	_Atomic int64_t ticked;
	uint32_t visits; /* to each of its pages, since a thread slept last */
	_Atomic bool settling; /* handshakes go on */
	atomic_bool nested;    /* it is in another set, or polled: epoll_nest.c */
	bool of_thread;        /* no program's: a thread's for poll, poll_set.c */
	bool shared;           /* the kernel's set is, with another process, since a fork */
	uint32_t round;        /* calls of poll that slept in it */
	unsigned int wanted;   /* connections that this one asks for */
	struct spinning spinning;
	struct set *behind;    /* of all threads' */
	struct lock lock;
	struct item *items;
	struct item *_Atomic first; /* candidates; changed under the lock */
	struct item *last;
	struct page_use {
		struct own_page *page;
		unsigned int users;
		uint32_t visits; /* of all, when a thread slept last */
		bool shown;      /* a sleep on it is announced for those who look from outside */
	} *pages;
	unsigned int page_count;
};

/* Data of the library's own in the kernel's sets. */
enum mark { MARK_NONE, MARK_KICK, MARK_TCP, MARK_BELL, MARK_PAGE };
uint64_t mark_data(enum mark mark, int fd);
enum mark mark_of(uint64_t data, int *fd);

/* The set of a descriptor, with a reference; NULL: it has no connections. */
struct set *set_get(int epfd);
void set_put(struct set *set);

/* Whether there ever was one: before, everything is the kernel's. */
bool set_any(void);

/* A new one for a descriptor that epoll_create1 has made, with one reference, in no table. NULL: no memory, or no set. */
struct set *set_new(int epfd);
/* Takes all items out, and lets go of a reference. */
void set_end(struct set *set);

/* The same as set_get, made if need be; NULL: no memory, or no set. */
struct set *set_make(int epfd);

/* Whether there is a set of a number, and not that of another number, too. */
bool set_is_another(int one, int epfd);

/* epoll_ctl with data of the library's own. */
int set_control(int epfd, int op, int fd, uint32_t events, uint64_t data);

/* Under the set's lock. */
void set_queue(struct item *it);
/* Without it; wakes a thread that sleeps in the kernel. */
void set_queue_and_kick(struct item *it);
/* Wakes a thread that sleeps, unless one is on its way. */
void set_kick(struct set *set);

/* Keeps the program's events, takes those of the library's own. Returns how many are kept. */
int set_sort_out(struct set *set, struct epoll_event *events, int n);

/* epoll_pwait2, until when; a handler that has run since the call began ends it, too. */
int set_ask_kernel(int epfd, struct epoll_event *events, int most, int64_t until, const sigset_t *mask, struct signals since);

/* So many connections at a time, that those who wait in the kernel, to be accepted for instance, have their turn soon. */
enum { SET_MOST = 64 };

/* How long the kernel is not asked while connections are ready; how long a sleep lasts before set_tick. */
#define SET_UNASKED_NS INT64_C(50000)
int64_t set_tick_ns(const struct set *set);
/* Once a second: handshakes that take too long, peers that have gone, what link groups keep. */
void set_tick(struct set *set);

/*
 * Looks for news on the pages for as long as has paid of late, without a lock: a signal's handler may use the set's connections meanwhile.
 * Returns whether there are some. watched: spin_slept is to hear how the sleep
 * goes that follows.
 */
bool set_spin(struct set *set, int64_t now, bool *watched);

/*
 * Around a sleep in the kernel, of a thread that has found no candidate. The announcement is on the set's pages; what comes to the set
 * meanwhile kicks it. set_lie_down returns until when to sleep, 0: there is something after all.
 */
struct rest {
	struct own_page *pages[MOST_PAGES];
	bool deputy[MOST_PAGES];
	unsigned int n;
};
int64_t set_lie_down(struct set *set, struct rest *rest, int64_t until);
void set_get_up(struct set *set, struct rest *rest);

/* The set whose candidates this thread looks at next: it needs no kick. */
extern _Thread_local struct set *set_at_hand;

/* Takes bits off the set's pages: what has news becomes a candidate. */
void set_look(struct set *set);
/* The set's page number i, with a reference; NULL: there are not so many. */
struct own_page *set_page(struct set *set, unsigned int i);
/* A thread comes from the program to wait. */
void set_visit(struct set *set);
/* Forgets what rang on one of the set's pages, and says of those that sleep on it that they still do. false: it is not, or no longer, one of them. */
bool set_drain(struct set *set, int bell);
/* Announces a sleep on page number i, see page_sleep; NULL: there are not so many. */
struct own_page *set_sleep(struct set *set, unsigned int i, bool *deputy);
/* Looks at the candidates, and fills in those that are ready. */
int set_harvest(struct set *set, struct epoll_event *events, int most);
bool set_has_candidates(struct set *set);

/* A thread comes to look at the set, and goes. */
void set_hide(struct set *set);
void set_show(struct set *set);

/*
 * All under the socket's listing. Event loops take connections out to put them in again at once, so one in SMC-D mode that is taken out is
 * parked: the kernel's set goes on listening, until a tick finds it parked for long. Nobody else sees such a one.
 */
/* Registers a descriptor in the kernel's set, too, anew if it is there; NULL: errno says why. The caller has found none. */
struct item *item_add(struct set *set, struct sock *s, int fd, const struct epoll_event *event);
struct item *item_find(struct sock *s, const struct set *set, int fd);
void item_change(struct item *it, const struct epoll_event *event);
void item_park(struct item *it);
/* Takes out those of a socket that are of a set (NULL: any) and a descriptor (-1: any), parked or not. */
bool items_remove(struct sock *s, const struct set *set, int fd);

/* Takes out one that is parked, if it is still. Takes listing. */
void item_retire(struct set *set, struct sock *s, int fd);

/* What a descriptor was registered with that was no connection yet. */
extern struct registration {
	_Atomic int epfd; /* plus one; 0: none */
	struct epoll_event event; /* of one that is there */
} registered[];

#endif
