/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What servers have just said.
 *
 * Some have said, time and again, that they speak no SMC. A program that connects for each request is answered the same by the
 * same server every time, and every question costs (docs/smc_run.md, Cost): so it is not put for a moment. Who comes to speak SMC meanwhile
 * is plain TCP to this program for that moment; who is restarted for it refuses a connect, or lets one fail, and that counts at once.
 *
 * Hints: threads may change them at once, and what one of them notes can be lost.
 */
#ifndef PRELOAD_SERVERS_H
#define PRELOAD_SERVERS_H

#include <stdbool.h>

#include "address.h"

/* Whether a server need not be asked now. */
bool servers_plain(const union address *a);

/* One was asked and has said that it is on TCP, or something else; or could not be asked. */
void servers_said_plain(const union address *a);
void servers_said_other(const union address *a);

/* One has answered a Proposal with an Accept; when that was last, as of now_ns, 0 if it is not known: a server that is busy, not one that hangs. */
void servers_took_up(const union address *a);
int64_t servers_taken_up_at(const union address *a);

#endif
