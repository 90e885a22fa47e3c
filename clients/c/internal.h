/* SPDX-License-Identifier: Apache-2.0 */
/* What the library's source files share. */
#ifndef ISMFS_INTERNAL_H
#define ISMFS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "cursor.h"
#include "hot.h"
#include "ismfs.h"

/* The two directions of a connection as seen by one side; also the byte of the wait state in which that thread announces its sleep. */
enum side { READER, WRITER, SIDES };

/* ---- device.c ---- */

#define ISMFS_DEVICE_PATH "devices/loopback-ism"

/* The leading integer of a control file, or a negative errno. */
int device_knob(const struct ismfs_device *dev, const char *name);

/* ---- dmb.c ---- */

bool dmb_is_separated(const struct ismfs_dmb *dmb);

/* Map a whole file, shared and writable, at a multiple of align (0: anywhere), and bring its pages in. */
int map_shared(int fd, size_t size, size_t align, unsigned char **map);

/* The same, but only the first bytes are brought in; more of them later. */
int map_first(int fd, size_t size, size_t first, unsigned char **map);
int populate_more(unsigned char *at, size_t size);

/* ismfs_dmb_attach, which asks the device what the DMB is: so who wants to know need not ask again. */
struct stat;
int dmb_attach(const struct ismfs_device *dev, uint64_t token, size_t size, struct ismfs_dmb *dmb, struct stat *st);

/* All of it, or a negative errno. */
int pwrite_all(int fd, const void *from, size_t n, size_t offset);

/* ---- fill.c ---- */

/* memcpy into a ring, whose cache lines are the reader's CPU's. */
void ring_fill(unsigned char *to, const unsigned char *from, size_t n);

/* ---- procs.c: numbers of smcd stats that these clients keep; procs may be NULL ---- */

void count_sent(struct ismfs_procs *procs, size_t bytes);
void count_received(struct ismfs_procs *procs, size_t bytes);
void count_send_call(struct ismfs_procs *procs, size_t asked, bool sent);
void count_receive_call(struct ismfs_procs *procs, size_t received);

/* Counters by their number in docs/dmb-format.md 3.2. */
enum counter {
	COUNT_INT_RX_BUFFER = 9, /* the first of nine, by size */
	COUNT_TX_SMALL_PEER = 36,
	COUNT_TX_SMALL = 37,
	COUNT_TX_FULL_PEER = 38,
	COUNT_TX_FULL = 39,
	COUNT_RX_SMALL = 44,
	COUNT_RX_FULL = 46,
	COUNT_RX_REUSE = 47,
	COUNT_RX_ALLOC = 48,
	COUNT_RX_DOWNGRADE = 49,
	COUNT_CLIENT_V2 = 51,
	COUNT_SERVER_V2 = 53,
	COUNT_SENDPAGE = 54,
	COUNT_SPLICE = 56,
	COUNT_RX_USAGE = 63,
};
void count_one(struct ismfs_procs *procs, enum counter which);
void count_add(struct ismfs_procs *procs, enum counter which, int64_t n);
void count_buffer(struct ismfs_procs *procs, size_t size); /* a receive buffer that comes into use */
/* Where that stands. */
_Atomic uint64_t *fallback_counter(struct ismfs_procs *procs, bool client, uint32_t code);
void count_fallback(struct ismfs_procs *procs, bool client, uint32_t code);
void count_handshake_error(struct ismfs_procs *procs, bool client);

/* The device's word to this process. */
uint32_t procs_id(const struct ismfs_procs *procs);
_Atomic uint32_t *procs_word(const struct ismfs_procs *procs);
uint64_t procs_epoch(const struct ismfs_procs *procs);
int procs_state(const struct ismfs_procs *procs); /* 0 inactive, 1 active, 2 draining */
int procs_dmb_type(const struct ismfs_procs *procs);
bool procs_separated(const struct ismfs_procs *procs); /* dmb_copy */
bool procs_finds(const struct ismfs_procs *procs); /* the device finds a slot's socket by its descriptor */
bool procs_may_look(const struct ismfs_procs *procs); /* for news before a sleep: ismfs mount --wait */
bool procs_epoch_valid(const struct ismfs_procs *procs, uint64_t epoch);

/*
 * Slots: descriptions of connections, listeners and link groups (3.3). A slot is an offset in the block, 0 for none; a block of size 4096
 * has 16. Taking and freeing may be done by different processes that share the mapping.
 */
enum { SLOT_SIZE = 128 };
/* Where the fields of a connection or listener are. */
enum {
	SLOT_KIND = 4,
	SLOT_ROLE = 5,
	SLOT_MODE = 6,
	SLOT_STATE = 7,
	SLOT_FAMILY = 8,
	SLOT_SHUTDOWN = 9,
	SLOT_LOCAL_PORT = 10,
	SLOT_PEER_PORT = 12,
	SLOT_LOCAL = 16,
	SLOT_PEER = 32,
	SLOT_TOKEN = 48,
	SLOT_PEER_TOKEN = 56,
	SLOT_LINK = 64,
	SLOT_REASON = 68,
	SLOT_DIAGNOSIS = 72,
	SLOT_DESCRIPTOR = 76,
	SLOT_INODE = 80,
};
int procs_open_sized(const struct ismfs_device *dev, size_t size, struct ismfs_procs **procs);
uint32_t slot_take(struct ismfs_procs *procs);
void slot_write(struct ismfs_procs *procs, uint32_t slot, const unsigned char b[SLOT_SIZE]);
/* What an opened block had in it already: once. */
void slots_found(struct ismfs_procs *procs, void (*f)(struct ismfs_procs *procs, uint32_t slot));
/* Whether a slot says this already, but for what is reserved; what it says. Both of one that this process has written. */
bool slot_says(const struct ismfs_procs *procs, uint32_t slot, const unsigned char b[SLOT_SIZE]);
void slot_read(const struct ismfs_procs *procs, uint32_t slot, unsigned char b[SLOT_SIZE]);
void slot_free(struct ismfs_procs *procs, uint32_t slot);

/* ---- futex.c: every function takes an absolute CLOCK_MONOTONIC time in nanoseconds, or FOREVER ---- */

#define FOREVER INT64_MAX

int64_t now_ns(void);
int64_t deadline_in(int timeout_ms);
struct timespec time_left(int64_t deadline);

/* Sleep while *word is value; a waker, the deadline or a signal ends it. shared: the word is seen by several processes. */
void futex_sleep(_Atomic uint32_t *word, uint32_t value, int64_t deadline, bool shared);
void futex_wake_all(_Atomic uint32_t *word, bool shared);

/* ---- bell.c ---- */

/*
 * A bell is a byte in a FIFO: whoever reads it has swallowed it, also when it was meant for this side's other thread. So one thread
 * at a time, the leader, listens and passes the news on through gen, a private futex; the other sleeps on gen.
 */
struct bell {
	int fd; /* -1: this side does not use its bell */
	_Atomic uint32_t gen;
	atomic_bool led;
};

struct bell_turn {
	uint32_t gen;
	bool leads;
};

/* arm before announcing, sleep after looking again, disarm in any case. */
struct bell_turn bell_arm(struct bell *bell);
void bell_sleep(struct bell *bell, struct bell_turn turn, int64_t deadline);
void bell_disarm(struct bell *bell, struct bell_turn turn);

/* Open bells/<token>, for listening or ringing, without ever blocking. */
int bell_open(const struct ismfs_device *dev, uint64_t token);
void bell_ring(int fd);

/* ---- connection: conn.c, header.c, wait.c ---- */

struct ismfs_conn {
	struct ismfs_dmb *own, *peer;
	struct ismfs_procs *procs;
	struct bell bell;
	int peer_bell;
	uint8_t sleeps_on;      /* what this side announces */
	uint32_t rx_len, tx_len; /* rings */

	/* The receiving thread's. */
	struct cursor rx_prod; /* last accepted */
	uint8_t rx_state;
	/* How far I have read, packed. The sending thread publishes it too, before it sleeps. */
	_Atomic uint64_t rx_cons;

	/* The sending thread's. */
	struct cursor tx_prod;
	struct cursor tx_cons; /* last accepted */
	uint8_t tx_state;

	/* What this side has written into the peer's header, where two threads write. */
	pthread_mutex_t lock;
	_Atomic uint64_t confirmed; /* consumer word; written under the lock */
	uint8_t waits[SIDES];

	atomic_bool shut;     /* own shutdown */
	atomic_bool peer_met; /* the peer has been seen on my DMB: only then can it leave */
	atomic_int failed;    /* why there is no more connection: ECONNRESET, ECONNABORTED, EPROTO; 0: none */

	unsigned int spin[SIDES]; /* rounds to spin before the next sleep; stays 0 with a single CPU */
	int64_t looked[SIDES];    /* when each thread last asked the device about the peer */
};

/* conn.c: is there anything for this thread to do: bytes (space), an end, an error? */
bool conn_ready(struct ismfs_conn *conn, enum side side);

/* header.c: the words of the two headers. All of them end in what section 1.4 asks for: a full fence before the wait state is read. */
uint64_t own_word(const struct ismfs_conn *conn, size_t offset);
void publish_producer(struct ismfs_conn *conn);
void publish_consumer(struct ismfs_conn *conn);
void publish_write_blocked(struct ismfs_conn *conn, bool blocked);
void publish_state(struct ismfs_conn *conn, uint8_t state_flag);
void announce(struct ismfs_conn *conn, enum side side, uint8_t how);
int put_payload(struct ismfs_conn *conn, const void *from, uint32_t n);
uint8_t peer_producer_flags(const struct ismfs_conn *conn);
/* The peer waits for a cursor that I have not published. */
bool holds_back_cursor(const struct ismfs_conn *conn);
struct cursor rx_cursor(const struct ismfs_conn *conn);
struct cursor confirmed_cursor(const struct ismfs_conn *conn);

/* wait.c: 0 once conn_ready, or -EAGAIN. */
int wait_ready(struct ismfs_conn *conn, enum side side, int64_t deadline);
void wait_setup(struct ismfs_conn *conn);

/* The reason of the end, kept for all later calls; the first one counts. */
void conn_fail(struct ismfs_conn *conn, int error);

#endif
