/* SPDX-License-Identifier: Apache-2.0 */
/* DMBs with their bells, as link groups keep them. Everything here is under link_lock. */
#ifndef PRELOAD_BUFFER_H
#define PRELOAD_BUFFER_H

#include "device.h"
#include "link.h"
#include "page.h"

enum role { ROLE_CLIENT = 1, ROLE_SERVER = 2 };

struct buffer {
	struct ismfs_dmb dmb;
	int bell;
	uint64_t epoch; /* of the device, from before it was registered */
	bool separated;
	uint32_t met; /* the device's word when it was last known to have its peer, if ever it had one */
	enum role role;
	struct buffer *next;               /* in a pool */
	int64_t pooled;                    /* since when */
	struct buffer *before, *behind;    /* of all */
};

struct remote {
	struct ismfs_dmb dmb;
	int bell;
	uint32_t owner; /* the procs id of the process that registered it */
	struct group *group;
	bool in_use;
	bool stand_in; /* nobody's: in the place of one that has gone */
	bool of_child; /* attached by a child of fork, for a group of its parent's: nobody can be when it has closed */
	struct remote *next; /* of all */
};

/* Negative errno. */
int buffer_register(struct device *d, enum role role, size_t size, struct buffer **made);
void buffer_close(struct buffer *b);
/* Is a token that a peer says is its own one of this process's, in the same role? No end of a connection is connected to itself. */
bool buffer_is_own(uint64_t token, enum role role);
/* Has a peer ever been attached? It says so in the header; one that is used again has had this peer before. */
bool buffer_was_met(const struct buffer *b);
/* Does somebody hold it beside this process? Asks the daemon. */
bool buffer_has_peer(const struct buffer *b);
/* The same of one that had a peer, without asking if the device says that nothing has been let go of since, and lives. */
bool buffer_keeps_peer(struct device *d, struct buffer *b);

int remote_attach(struct device *d, uint64_t token, size_t size, struct remote **attached);
/*
 * Memory in the place of a peer's DMB that has gone before it could be attached: what is written there nobody reads. It has no token, is of
 * no list, and ends with its connection.
 */
int remote_stand_in(size_t size, struct remote **made);
/* One that stayed attached, or NULL. */
struct remote *remote_find(uint64_t token);
void remote_close(struct remote *r);
/* Of a connection that is over, and whose group does not keep it for the next one. */
void remote_leave(struct remote *r);
/* Closes those of a group that are not in use. */
void remotes_close(const struct group *g);
/* Closes those of a group that are not in use and whose owner has let go of them. */
void remotes_drop_lost(const struct group *g);
/* Whether its owner is there still. */
bool remote_has_owner(const struct remote *r);

/* A child of fork begins anew, without what only its parent keeps. Of groups that handshakes go on in it keeps what the parent is attached to. */
void buffers_forget(void);

#endif
