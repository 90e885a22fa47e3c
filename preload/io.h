/* SPDX-License-Identifier: Apache-2.0 */
/* Moving bytes of a connection, as the socket's modes and flags say. All return -errno. */
#ifndef PRELOAD_IO_H
#define PRELOAD_IO_H

#include "epoll.h"
#include "sock.h"
#include "wait.h"

enum { IO_PLAIN = 1, IO_END = 2 };

/*
 * Wait for the handshake as the socket allows: 0 SMC-D mode, IO_PLAIN, IO_END, or what the call fails with. EDEADLK: it is a signal's handler's,
 * and would wait for what its thread is in the middle of.
 */
int io_ready(struct sock *s, int fd, enum side side, int flags);

/* The bytes of a list. */
size_t io_length(const struct iovec *iov, int n);

/* With the patience of their call, of which they may be one part of many: each has the socket's limit for itself. */
ssize_t io_read(struct sock *s, int fd, const struct iovec *iov, int n, int flags, struct patience *p);
ssize_t io_write(struct sock *s, int fd, const struct iovec *iov, int n, int flags, struct patience *p);

/* Wait until there is more to peek at than a size: 0, or why there is not: -EAGAIN, -EINTR. */
int io_wait_for_more(struct sock *s, int fd, size_t have, const struct patience *p);

/*
 * After a write that gave -EAGAIN or -EBUSY: wait as one on this socket waits until it can move something: 0, or what it fails with.
 */
int io_wait_to_write(struct sock *s, int fd, ssize_t gave, int flags, struct patience *p);

/* SO_RCVTIMEO or SO_SNDTIMEO in ns, asked for the first time somebody has to wait; 0: none. */
int64_t io_limit(struct sock *s, int fd, enum side side);

/* What a write gives on a connection that takes no more; and what it raises. */
ssize_t io_refuse(struct sock *s, size_t n, int flags);
void io_broken_pipe(int flags);

/* What the program's streams (stdio.c) have not written yet. */
void streams_flush(void);

/* A result as the C library gives it. */
ssize_t io_result(ssize_t n);

#endif
