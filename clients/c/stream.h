/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path of an SMC-D connection: docs/dmb-format.md 1 and 2, and libsmc/internal/stream, without waiting. Every call that would
 * have to wait returns -EAGAIN; who waits announces how (stream_announce), looks again (stream_ready), sleeps, and takes it back.
 *
 * What a connection's processes must agree on (a program that forks has several on one end) lies in a stream_state, in memory that they
 * share. The rest, mappings and descriptors, is a struct stream in each of them.
 *
 * Locks are taken in the order reading, writing, lock. Every change is complete with its last store, so that a lock whose holder was
 * killed can be taken over: at worst bytes that nobody was told of are written or read again.
 */
#ifndef ISMFS_STREAM_H
#define ISMFS_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "internal.h"
#include "lock.h"
#include "smc.h"

enum { STREAM_ON_PAGE = 3 }; /* a wait field's value beside ISMFS_AWAKE and the rest */

struct stream_state {
	struct lock reading; /* rx_word, rx_prod, rx_left; changes of consumed */
	struct lock writing; /* tx_prod, blocked; changes of produced */
	struct lock lock;    /* the rest; changes of confirmed and said */
	struct lock turn;    /* held by a writer that has written a part and goes on: nobody else's bytes come in between */

	_Atomic uint64_t consumed;  /* how far I have read my ring */
	_Atomic uint64_t produced;  /* how far I have written the peer's; stored before the word in its header */
	_Atomic uint64_t confirmed; /* the consumer word that I wrote last */
	_Atomic uint64_t said;      /* the consumer word of the peer's that I accepted last */

	uint64_t rx_word;
	struct cursor rx_prod;
	uint32_t rx_left;
	struct cursor tx_prod;
	bool blocked;

	struct smc_machine machine;
	uint8_t seen_state; /* state flags of said */
	struct cursor peer_read; /* as far as said says */
	uint8_t flags;           /* producer flags that I show */
	int fault;               /* EPROTO and the like: what the peer did that it must not */
	uint8_t waits[SIDES];    /* as announced, for copy mode: a word is written whole */
	_Atomic bool finished;   /* the closing word is written: never write into the peer's DMB again */
	bool spoiled;            /* the DMBs cannot be reused */
	_Atomic bool tcp_ended;
	bool peer_met;

	_Atomic int read_stop, write_stop; /* smc_read_stop and smc_write_stop, or the fault */
	_Atomic int error;                 /* to be told, once */
	_Atomic bool failed;               /* there was one */
	_Atomic bool done_writing;         /* this side has ended its own direction */
	_Atomic uint64_t bytes_read;
};

/* A doorbell page of a link group, as one of its two processes has it. */
struct stream_page {
	unsigned char *map;
	int bell;
};

struct stream {
	struct stream_state *state;
	unsigned char *own, *peer; /* peer NULL: copy mode */
	int own_fd, peer_fd, own_bell, peer_bell;
	uint32_t rx_len, tx_len;
	bool separated; /* the own DMB: the peer cannot wake a futex */
	struct ismfs_procs *procs;
	uint64_t epoch; /* of the device, from before the own DMB was registered */
	const struct stream_page *peer_page; /* NULL: none */
	uint16_t peer_bit;
};

/* A new connection. Everything in s but the lengths is filled in; state is zeroed. */
void stream_open(struct stream *s, size_t own_size, size_t peer_size);

/* Read what is there; peek leaves it. 0: the end. -EAGAIN; another error is told by stream_take_error. */
ssize_t stream_read(struct stream *s, const struct iovec *iov, int n, size_t skip, bool peek);

/*
 * Write what fits of the bytes behind skip. -EAGAIN: nothing does; the peer then knows that more is to come. -EBUSY: another thread is in
 * the middle of its bytes. Another error is told by stream_refuse. whole: the caller goes on until all is written, and says so by
 * stream_written at its end.
 */
ssize_t stream_write(struct stream *s, const struct iovec *iov, int n, size_t skip, bool whole);
void stream_written(struct stream *s);
/* Wait for whoever is in the middle. */
void stream_wait_turn(struct stream *s);

/*
 * Move bytes to or from something else, at most so many (stream_pass.c). The mover is called once, if there are bytes or room, and must not wait; it
 * returns how many it has moved, or 0, or a negative errno, which is then what the call returns. Else as stream_read and stream_write.
 */
typedef ssize_t stream_mover(void *context, const struct iovec *iov, int n);
ssize_t stream_drain(struct stream *s, size_t most, stream_mover *sink, void *context);
ssize_t stream_fill(struct stream *s, size_t most, stream_mover *source, void *context);

/*
 * What ends a connection other than in order is told once, to whichever of the calls of all its processes comes first; after that, reads give
 * the end and writes EPIPE. All as with TCP. Returns the error, and 0 if it has been told.
 */
int stream_take_error(struct stream *s);
/* A call has taken it, and could not tell. */
void stream_tell_again(struct stream *s, int error);
/* What a write of n bytes gives that can move none: -EPIPE, an error, or n. Whether it can be n. */
ssize_t stream_refuse(struct stream *s, size_t n);
bool stream_takes(struct stream *s);

/* In a signal's handler: whether its thread is in the middle of what a call on this side would wait for. */
bool stream_is_mine(const struct stream *s, enum side side);

/* POLLIN, POLLOUT, POLLHUP, POLLERR, POLLRDHUP as they stand. */
short stream_ready(struct stream *s);

/* Bytes that can be read, or that wait to be read by the peer. */
size_t stream_readable(struct stream *s);
size_t stream_unread_by_peer(const struct stream *s);

/* Something that only the peer can have changed since the words were as given: the edge of an edge-triggered poll. */
struct stream_words {
	uint64_t producer, consumer;
};
struct stream_words stream_words(const struct stream *s);

/* Say how a side sleeps, with a full fence. Before: tell the peer what it waits for (stream_settle_cursor). */
void stream_announce(struct stream *s, enum side side, uint8_t how);
void stream_settle_cursor(struct stream *s);
void stream_confirm(struct stream *s); /* the peer hears of all that has been read */

/* Whether the peer still thinks that a side sleeps as announced; true where it cannot be told (copy mode). */
bool stream_is_announced(const struct stream *s, enum side side);

int stream_shutdown(struct stream *s, int how); /* SHUT_RD and the rest */

/* Write the last word. abort: the peer hears abort, as for unread bytes. Returns whether TCP is to be reset. */
bool stream_close(struct stream *s, bool abort);

/*
 * How far the end has come, also for a process that has closed before others of its side. OVER: both sides have closed in order, nobody
 * writes into the DMBs any more. LOST: that will not come. ENDING: one side has closed.
 */
enum stream_end { STREAM_GOES_ON, STREAM_ENDING, STREAM_OVER, STREAM_LOST };
enum stream_end stream_end_of(const struct stream *s);

/* Zero the own DMB for the next connection. */
void stream_reset_own(struct stream *s);

/* The end of TCP (reset: other than by a FIN), a byte there, the device's end, and what fstat says of the two DMBs. */
void stream_tcp_ended(struct stream *s, bool reset);
void stream_tcp_spoke(struct stream *s);
void stream_kill(struct stream *s);
void stream_check_links(struct stream *s);

/* The own sequence, for futex sleeps, and moving it for events of one's own side. */
_Atomic uint32_t *stream_sequence(const struct stream *s);
void stream_rouse(struct stream *s);

uint8_t stream_smc_state(struct stream *s, uint8_t *shutdown);

/* Doorbell pages. */
_Atomic uint32_t *page_wait(const struct stream_page *p);
_Atomic uint32_t *page_place(const struct stream_page *p); /* 1 + the one CPU of its owner's process; 0: there are several */
bool page_has_bits(const struct stream_page *p, unsigned int words);
uint64_t page_take(const struct stream_page *p, unsigned int word);
void page_ring(const struct stream_page *p, uint16_t bit);

enum { PAGE_SIZE_BYTES = 4096, PAGE_BITS = (4096 - 64) * 8, PAGE_TYPE = 0xDB };

#endif
