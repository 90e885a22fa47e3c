/* SPDX-License-Identifier: Apache-2.0 */
/* What ismfs-send and ismfs-recv share: options, the rendezvous, the connection, the closing line. */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <stdio.h>

#include "ismfs.h"

struct options {
	const char *file;       /* "-": standard input or output */
	const char *mount;      /* NULL: $ISMFS_MOUNT or the only mount */
	const char *rendezvous; /* path whose .send and .recv carry the tokens */
	size_t size;            /* of this end's DMB */
	bool counted, bell, quiet;
};

struct transfer {
	struct ismfs_device dev;
	struct ismfs_dmb own, peer;
	struct ismfs_procs *procs; /* NULL: uncounted */
	struct ismfs_conn *conn;
	double started; /* seconds */
};

/* Exits with 2 and a usage message when the command line is wrong. */
struct options parse_options(int argc, char **argv, size_t default_size);

/* Exits with 1 and a message: what was tried, and why it failed. */
void fail(const char *what, int negative_errno);

/*
 * Register, exchange tokens and connect. This end writes "TOKEN SIZE\n" (16 hex digits, decimal) to PATH.mine, complete at once by
 * rename, waits for PATH.theirs and removes it.
 */
void transfer_open(struct transfer *t, const struct options *options, const char *mine, const char *theirs);

/* Close everything and print "BYTES bytes in SECONDS s, RATE MB/s" on standard error. */
void transfer_close(struct transfer *t, const struct options *options, unsigned long long bytes);

#endif
