/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory that looks like a mount but is plain tmpfs: DMBs are ordinary files, bells are FIFOs. What only the device does is done
 * by hand: fake_attached gives a DMB its second reference (a hard link), fake_withdraw_peer takes it away.
 */
#ifndef ISMFS_FAKE_H
#define ISMFS_FAKE_H

#include "ismfs.h"

struct fake {
	char root[64];
	struct ismfs_device dev;
};

void fake_open(struct fake *fake);
void fake_close(struct fake *fake);

/* Register and make the bell. */
void fake_register(struct fake *fake, size_t size, struct ismfs_dmb *dmb);
/* Attach and count the reference. */
void fake_attach(struct fake *fake, const struct ismfs_dmb *theirs, struct ismfs_dmb *dmb);
/* The same in copy mode: write-only, not mapped. */
void fake_attach_separated(struct fake *fake, const struct ismfs_dmb *theirs, struct ismfs_dmb *dmb);
/* One reference fewer, as when owner or peer goes. */
void fake_drop_reference(struct fake *fake, const struct ismfs_dmb *dmb);

/* Two connected ends. */
struct fake_pair {
	struct ismfs_dmb own[2], peer[2];
	struct ismfs_conn *conn[2];
};

void fake_connect(struct fake *fake, size_t size, bool separated, unsigned int flags, struct fake_pair *pair);
void fake_disconnect(struct fake_pair *pair);

/* Byte i of a stream, so that a byte out of place shows. */
unsigned char pattern(size_t i);

#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
void check(bool ok, const char *what, const char *file, int line);

#endif
