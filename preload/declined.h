/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A side that has declined while a message of the other's may be on its way. Its bytes go through TCP at once; before what it reads next,
 * that message is taken off, and then the connection is plain.
 *
 *   - A client that has to write, and whose server's program does not come to answer, gives SMC up: over TCP the write would not wait. Its
 *     Decline stands behind its Proposal, where the server looks for it: in place of a Confirm, or before it answers at all. The server
 *     answers every Proposal by exactly one message, an Accept or a Decline.
 *   - A server that has declined a Proposal may get such a Decline, sent before its own was there.
 *
 * And how a connection ends whose handshake has not.
 */
#ifndef PRELOAD_DECLINED_H
#define PRELOAD_DECLINED_H

#include <stdbool.h>
#include <stdint.h>

#include "sock.h"

static inline bool has_declined(const struct sock *s)
{
	return atomic_load(&s->shared->declined);
}

/* A call of the program's wants to write, or waits until it can. */
void declined_wanted(struct sock *s);
/* When a client gives up that wants to write; FOREVER: never. */
int64_t declined_at(const struct sock *s);

/*
 * A write that has been told that there is room, and must not wait. Where the server is this process, which writes in place of accepting,
 * the client gives up now. Whether bytes can go.
 */
bool declined_at_once(struct sock *s, int fd);

/* What follows is under the handshake's lock. */

/* The client gives SMC up if it is time to. Whether it has. */
bool declined_late(struct sock *s, int fd);
/* The server declines a Proposal. */
void declined_proposal(struct sock *s, int fd, uint32_t code);
/* The next step after either: whether it was done. */
bool declined_step(struct sock *s, int fd);

/* The same before the connection goes to somebody who knows nothing of SMC: a client's Decline has come by now or never will. */
bool declined_pass(struct sock *s, int fd);

/*
 * What stands behind a Proposal that was just taken: its client has given up, or gone. Returns whether that settles the connection: nothing
 * is agreed on then.
 */
bool declined_already(struct sock *s, int fd);

/* The last descriptor goes. Without the lock. */
void declined_close(struct sock *s, int fd);

/* shutdown before the handshake has ended: 0, or IO_PLAIN where TCP's is to be called. Without the lock. */
int declined_shutdown(struct sock *s, int fd, int how);
/* Carries it out now that it has. */
void declined_shut(struct sock *s, int fd);
bool declined_has_shut(const struct sock *s, enum side side);

#endif
