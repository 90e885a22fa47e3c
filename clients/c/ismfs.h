/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libismfs: move bytes between two processes through ismfs DMBs.
 *
 * A DMB (direct memory buffer) is a shared file of 32 header bytes and a ring. Its owner reads the ring, one peer writes it, so a
 * connection is two DMBs: mine, which I read, and the peer's, which I write. docs/dmb-format.md is the contract; this is it in C.
 *
 *   offset size  field            written by           constant
 *        0    1  type (0xFE)      peer                 ISMFS_OFF_TYPE
 *        8    8  producer word    peer                 ISMFS_OFF_PROD    wrap u16, count u32, 0, 0
 *       16    8  consumer word    peer                 ISMFS_OFF_CONS    wrap u16, count u32, producer flags, state flags
 *       24    4  signal sequence  peer, owner, device  ISMFS_OFF_SEQ     the futex on which the owner sleeps
 *       28    1  reader's wait    peer, owner clears   ISMFS_OFF_WAIT    how the peer's reader sleeps
 *       29    1  writer's wait    peer, owner clears   ISMFS_OFF_WAIT+1  how the peer's writer sleeps
 *       32    -  ring             peer                 ISMFS_HEADER
 *
 * Errors: every function that can fail returns a negative errno (-ENOENT, ...) and leaves errno undefined. Sizes are in bytes, times in
 * milliseconds; a timeout of -1 means for ever, 0 means do not wait. There is no global state.
 *
 * Threads: on one connection one thread may send while another receives. Everything else needs the caller's own lock.
 */
#ifndef ISMFS_H
#define ISMFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
	ISMFS_OFF_TYPE = 0,
	ISMFS_OFF_PROD = 8,
	ISMFS_OFF_CONS = 16,
	ISMFS_OFF_SEQ = 24,
	ISMFS_OFF_WAIT = 28,
	ISMFS_HEADER = 32,
};

enum {
	ISMFS_TYPE_DMB = 0xFE,
	ISMFS_MIN_SIZE = 4096,   /* of a DMB, and the step of its sizes */
	ISMFS_TOKEN_TEXT = 17,   /* 16 hex digits and a NUL */
	ISMFS_CHUNK = 64 * 1024, /* a longer send is published in pieces of this size, so that both sides copy at once */
};

/* Producer flags and connection state flags of the consumer word (struct smc_cdc_producer_flags and smc_cdc_conn_state_flags). */
enum {
	ISMFS_WRITE_BLOCKED = 0x80,
	ISMFS_CONS_CURS_UPD_REQ = 0x10,

	ISMFS_PEER_DONE_WRITING = 0x80,
	ISMFS_PEER_CONN_CLOSED = 0x40,
	ISMFS_PEER_CONN_ABORT = 0x20,
};

/* Values of a wait field. */
enum {
	ISMFS_AWAKE = 0,
	ISMFS_SLEEPS_ON_FUTEX = 1,
	ISMFS_SLEEPS_ON_BELL = 2,
};

/* ---- device -------------------------------------------------------------------------------------------------------------------- */

/* A loopback-ism device: the directory MOUNT/devices/loopback-ism, and a knob as it stood when it was opened. */
struct ismfs_device {
	int dir;      /* O_PATH */
	int dmb_type; /* 0 contiguous (huge pages), 1 base pages */
};

/*
 * Open the device of a mount. mount NULL means $ISMFS_MOUNT and, if that is not set, the only fuse.ismfs mount of this mount namespace
 * (-ENOENT: none, -ENOTUNIQ: several). Looks nothing up again: after the daemon was replaced, open a new one.
 */
int ismfs_device_open(struct ismfs_device *dev, const char *mount);

/* Read dmb_type again; DMBs registered from now on follow it. */
int ismfs_device_refresh(struct ismfs_device *dev);

/* DMBs, connections and procs blocks of the device stay valid. */
void ismfs_device_close(struct ismfs_device *dev);

/* ---- DMB ----------------------------------------------------------------------------------------------------------------------- */

/* A DMB of mine (registered) or of a peer (attached). Read its fields, do not change them. */
struct ismfs_dmb {
	uint64_t token;
	size_t size;        /* of the file; the ring has size - ISMFS_HEADER bytes */
	unsigned char *map; /* NULL: a peer's DMB in copy mode, written with pwrite */
	int fd;             /* a mapping is valid only while this is open */
	bool separated;     /* a peer's in copy mode: written, not mapped */
};

/*
 * Register a DMB of size bytes (a multiple of 4096) under a random token: create, size, map, populate. The memory is charged to this
 * process's cgroup here. -ENODEV: the device is off. -ENOSPC, -ENOMEM: the device's or this cgroup's limit. -EINVAL: the size.
 */
int ismfs_dmb_register(const struct ismfs_device *dev, size_t size, struct ismfs_dmb *dmb);

/* Unmap and close: the device frees it when the peer lets go as well. */
void ismfs_dmb_unregister(struct ismfs_dmb *dmb);

/*
 * Attach to a peer's DMB: once in its life. size is what the peer told (0: not known); another st_size is -EMSGSIZE. In copy mode
 * dmb->map is NULL. -ENOENT: no such token, -EBUSY: somebody is attached, -EACCES: not for this user, -ENOMEM: no memory to map it.
 */
int ismfs_dmb_attach(const struct ismfs_device *dev, uint64_t token, size_t size, struct ismfs_dmb *dmb);

/* Unmap and close. */
void ismfs_dmb_detach(struct ismfs_dmb *dmb);

/* 16 lower-case hex digits. Parse wants exactly these and not 0 (-EINVAL). */
void ismfs_token_format(uint64_t token, char text[ISMFS_TOKEN_TEXT]);
int ismfs_token_parse(const char *text, uint64_t *token);

/* ---- procs block --------------------------------------------------------------------------------------------------------------- */

/* This process's block of counters. Without one, its traffic is missing from xfer_bytes and stats. */
struct ismfs_procs;

/* Open (and create, the first time) procs/self. One is enough for all threads and connections: adding to it is atomic. */
int ismfs_procs_open(const struct ismfs_device *dev, struct ismfs_procs **procs);

/* The counters live on until the process ends or the last handle goes; connections that count in it must be closed before. */
void ismfs_procs_close(struct ismfs_procs *procs);

/* ---- connection ---------------------------------------------------------------------------------------------------------------- */

struct ismfs_conn;

enum { ISMFS_USE_BELL = 1 }; /* flag of ismfs_conn_open: sleep on the bell even where the futex would do */

/*
 * Make a connection of my DMB and the peer's. Both are borrowed: close the connection, then detach and unregister. procs may be NULL
 * (uncounted). Opens the bells now, since no path can be looked up once the daemon is dead. Rings start empty: both DMBs are new.
 */
int ismfs_conn_open(const struct ismfs_device *dev, struct ismfs_dmb *own, struct ismfs_dmb *peer, struct ismfs_procs *procs,
		    unsigned int flags, struct ismfs_conn **conn);

/*
 * Send up to n bytes; waits until all are in the peer's ring or the time is up, and returns how many are (less than n: time or
 * connection ran out, the next call says which). -EAGAIN: none in time. -EPIPE: after ismfs_conn_shutdown. -ECONNRESET: the peer has
 * closed or is gone. -ECONNABORTED: the device withdrew a DMB. -EPROTO: the peer broke the contract. A signal does not end a wait.
 */
ssize_t ismfs_conn_send(struct ismfs_conn *conn, const void *buf, size_t n, int timeout_ms);

/*
 * Receive 1 to n bytes: waits for the first, takes what is there. 0: end of the stream (or n is 0). -EAGAIN: none in time.
 * -ECONNRESET: the peer aborted, or is gone without having ended the stream. Others as for send. Bytes that arrived come first.
 */
ssize_t ismfs_conn_recv(struct ismfs_conn *conn, void *buf, size_t n, int timeout_ms);

/*
 * Wait until receive (send) would not wait: 0, or -EAGAIN when the time is up. An end or error of the connection counts as ready.
 * Wait for sending is over when there is space for one byte.
 */
int ismfs_conn_wait_readable(struct ismfs_conn *conn, int timeout_ms);
int ismfs_conn_wait_writable(struct ismfs_conn *conn, int timeout_ms);

/*
 * Borrow what can be read in place: *data points to the returned number of bytes (up to the end of the ring; 0: none now). They stay
 * the peer's to overwrite maliciously, so copy before checking anything. -ENODATA: end of the stream; errors as for receive.
 */
ssize_t ismfs_conn_peek(struct ismfs_conn *conn, const void **data);

/* Give back n bytes that were read in place and tell the peer, if the rule says so. -EINVAL: more than there were. */
int ismfs_conn_consume(struct ismfs_conn *conn, size_t n);

/*
 * Borrow free space of the peer's ring: *space points to the returned number of bytes (0: full now, and the peer is told to report
 * space at once). -EOPNOTSUPP in copy mode; errors as for send.
 */
ssize_t ismfs_conn_reserve(struct ismfs_conn *conn, void **space);

/* Publish the first n reserved bytes and wake the peer if it sleeps. -EINVAL: more than there is space for. */
int ismfs_conn_commit(struct ismfs_conn *conn, size_t n);

/* No more will be sent (peer_done_writing). Receiving goes on. */
int ismfs_conn_shutdown(struct ismfs_conn *conn);

/* Tell the peer (peer_conn_closed, or peer_conn_abort when bytes are unread) and free the connection. NULL is fine. */
void ismfs_conn_close(struct ismfs_conn *conn);

#ifdef __cplusplus
}
#endif
#endif
