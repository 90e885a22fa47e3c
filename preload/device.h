/* SPDX-License-Identifier: Apache-2.0 */
/* The device that this process uses. */
#ifndef PRELOAD_DEVICE_H
#define PRELOAD_DEVICE_H

#include <sys/types.h>

#include "../clients/c/clc.h"
#include "../clients/c/internal.h"
#include "../clients/c/lock.h"

struct device {
	struct ismfs_device dev;
	unsigned char gid[CLC_GID];
	struct ismfs_procs *procs;
	atomic_bool dead; /* its daemon has gone, or another device is mounted in its place */
	char *point;      /* the mount point, NULL if it cannot be told */
	dev_t at;         /* the file system there when it was last seen to be the device's; under device_lock */
	int process;      /* that the block is of */
	_Atomic int64_t answered; /* when the daemon did last */

	struct lock eids_lock;
	bool has_eids;
	uint32_t eids_at; /* the device word before they were read */
	struct clc_local local;
};

/*
 * The device, looked for if there is none, its daemon has gone or another one is mounted in its place; NULL: none, which counts for a second. It is never freed: connections
 * hold on to the one that they were made on.
 */
struct device *device_current(void);

/* A child of fork is another process to the device. */
void device_forked(void);
extern struct lock device_lock;

/* What this process brings to a handshake now: 0 or a negative errno. */
int device_local(struct device *d, struct clc_local *local);

/* Looks whether an error says that the daemon is gone, and returns it. */
int device_noted(struct device *d, int error);

/*
 * The death of a daemon is told to nobody. DMBs that are used again need it for nothing else, and without it connections would come about
 * that no knob reaches: so each answer of its counts for a tenth of a second.
 */
void device_answered(struct device *d);
bool device_answered_lately(const struct device *d);

/* The SMC option of the TCP handshake (docs/bpf.md). Negative errno; smcopt_ask returns one of the answers. */
enum { SMCOPT_PLAIN = 1, SMCOPT_SMC = 2, SMCOPT_KERNEL = 3, SMCOPT_LISTENER = 4 };
int smcopt_mark(int fd, const struct device *d);
int smcopt_unmark(int fd);
int smcopt_ask(int fd);

#endif
